"""The n-th allocation fails with TLS and a file of keys: at start, in the script of test_oom.py, and while both files
are read again at SIGHUP. A handshake without memory ends its connection and no other.

OOM_STEP=1 takes every n; else every so-many-th, the first ones all."""

import contextlib
import os
import re
import resource
import signal
import ssl

import pytest

from harness import SANITIZED, Daemon
from oom import ALIVE, Control
from test_oom import CLASSES, MOST, OPTIONS, SCRIPT, ask, fail_at_start, fail_in_script, key_file, model, settle  # noqa: F401
from test_supervise import Manager
from test_tls import Authority

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitizers have an allocator of their own")
STEP = int(os.environ.get("OOM_STEP", 0))


def some(step):
    """Which n: all of the first, then one in step."""
    return range(1, MOST) if STEP == 1 else [*range(1, 10), *range(10, MOST, STEP or step)]


class Served:
    """A daemon with TLS and keys in which allocations fail, and two of each file."""

    def __init__(self, folder, model):
        self.authority = Authority(folder)
        self.context = self.authority.context
        self.files = [self.authority.issue(name, serial) for name, serial in (("one", 0x51), ("two", 0x52))]
        self.cert, self.key, self.keys = (folder / f"in-force.{x}" for x in ("pem", "key", "keys"))
        self.install(0)
        conf = folder / "vramd.conf"
        conf.write_text("[scheduler]\nmax_num_seqs = 4\n")
        self.options = ["--model", model, *OPTIONS, "--config", str(conf), "--tls-cert", str(self.cert), "--tls-key", str(self.key),
                        "--api-keys-file", str(self.keys)]
        self.control = Control()

    def start(self, *more, **env):
        self.d = Daemon(*self.options, *more, "--no-prefix-caching", env={**self.control.env(), **env}, verify=self.context)
        self.d.http.close()  # a kept connection keeps the certificate that it began with
        return self.d

    def install(self, i):
        """The files as they would be after the next SIGHUP; the key "k" is in both, one of its own in each."""
        for to, of in zip((self.cert, self.key), self.files[i]):
            to.touch(0o600)
            to.write_text(of.read_text())
        key_file(self.keys, "k", f"only-{i}")

    def ask(self, *what, key="k"):
        return ask(self.d.port, *what, context=self.context, key=key)


@pytest.fixture
def served(tmp_path, model):  # noqa: F811
    return Served(tmp_path, model)


def test_at_start_an_error_names_the_class(served):
    refused = fail_at_start(some(9), *served.options, context=served.context)
    assert refused > 10


@pytest.mark.parametrize("width", [1, MOST], ids=["one fails", "all fail from then on"])
def test_while_it_serves_the_answer_is_right_or_503_or_the_connection_ends(served, width):
    d = served.start()
    try:
        for what in SCRIPT.values():
            served.ask(*what)
        before = served.control.get(ALIVE)
        for counts in fail_in_script(d, served.control, width, some(17), served.context).values():
            assert counts["closed"] > 3 and (width > 1 or counts["right"] + counts["refused"] > 0), counts
        settle(d, served.control, before + len(SCRIPT), served.context)
    finally:
        d.stop()


def in_force(served):
    """Which certificate, which keys."""
    listed = [i for i in (0, 1) if served.ask("GET", "/v1/models", key=f"only-{i}")[0] == 200]
    return served.authority.serial(served.d.port) - 0x51, listed


@pytest.mark.parametrize("width", [1, MOST], ids=["one fails", "all fail from then on"])
def test_a_reload_without_memory_keeps_what_was_read_before_and_says_so(served, tmp_path, width):
    manager = Manager(tmp_path / "notify")
    d = served.start(NOTIFY_SOCKET=manager.path)
    manager.wait("READY=1")
    try:
        cert, keys, taken = 0, 0, {"nothing": 0, "one": 0, "both": 0}
        for n in some(13):
            settle(d, served.control, blocks := served.control.get(ALIVE), served.context)
            served.install(1 - cert)
            key_file(served.keys, "k", f"only-{1 - keys}")
            said = len(d.text())
            served.control.arm(n, width)
            d.process.send_signal(signal.SIGHUP)
            manager.wait("RELOADING=1")
            manager.wait("READY=1")
            if not served.control.disarm()[0]:
                break
            text = d.text()[said:]
            fresh = [bool(re.search(what, text)) for what in ("info TLS: .* serial=", "info reload: 2 tenants")]
            kept = re.findall("error reload: what was read before stays in force: .*class (\\w+)", text)
            nothing = re.search("error reload: nothing is taken over: .*class (\\w+)", text)
            assert nothing or len(kept) + sum(fresh) == 2, (n, text)
            assert CLASSES >= {*kept, *([nothing[1]] if nothing else [])}
            cert, keys = cert ^ fresh[0], keys ^ fresh[1]
            assert in_force(served) == (cert, [keys]), (n, text)
            taken["both" if all(fresh) else "one" if any(fresh) else "nothing"] += 1
            settle(d, served.control, blocks, served.context)
        assert n < MOST - 20 and taken["nothing"] > 0 and taken["one"] > 3, taken
    finally:
        d.stop()


def test_at_the_end_of_the_heap_handshakes_end_and_connections_go_on(served):
    """A limit of the process itself, at which no library gets a byte more: sessions come until they use all up."""
    d = served.start("--max-connections", "64", "--idle-timeout", "60")

    def used():
        return int(re.search(r"VmData:\s+(\d+)", open(f"/proc/{d.process.pid}/status").read())[1]) * 1024

    def limit(n):
        resource.prlimit(d.process.pid, resource.RLIMIT_DATA, (n, resource.RLIM_INFINITY))

    def alive(session):
        session.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"ok"}'):
            answer += session.recv(4096) or pytest.fail("the session has ended")

    try:
        refused = served_all = 0
        for more in range(0, 400_000, 4096 if STEP == 1 else 57_344):
            limit(used() + more)
            sessions, vain = [], 0
            while len(sessions) < 24 and vain < 3:
                try:
                    sessions.append(served.authority.connect(d.port))
                    alive(sessions[-1])
                except (ConnectionError, ssl.SSLError):
                    vain += 1
            refused += vain
            for s in sessions[:8]:
                with contextlib.suppress(ConnectionError, ssl.SSLError):  # the last ones may be half made
                    alive(s)
                    served_all += 1
            d.process.send_signal(signal.SIGHUP)
            served.ask("GET", "/v1/models")
            limit(resource.RLIM_INFINITY)
            for s in sessions:
                s.close()
            assert served.ask("GET", "/v1/models")[0] == 200, d.text()
        assert refused > 10 and served_all > 10, (refused, served_all)
    finally:
        d.stop()
