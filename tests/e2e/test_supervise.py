"""What a service manager sees: notifications, watchdog, socket activation, reload, the units."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from harness import BINARY, MODEL, ROOT, Daemon, vramd
from tiny_model import write

SMALL = ["--max-model-len", "256", "--max-num-seqs", "2", "--kv-cache-tokens", "256"]


class Manager:
    """The listening end of $NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path.replace("@", "\0", 1) if self.path.startswith("@") else self.path)
        self.lines = []

    def wait(self, wanted, seconds=60):
        """Reads until a line begins with wanted; returns it."""
        end = time.monotonic() + seconds
        while True:
            for i, line in enumerate(self.lines):
                if line.startswith(wanted):
                    del self.lines[: i + 1]
                    return line
            self.socket.settimeout(max(end - time.monotonic(), 0.01))
            self.lines += self.socket.recv(4096).decode().split("\n")


def engine_wakes(d):
    """How often the engine's thread has slept so far."""
    for task in Path(f"/proc/{d.process.pid}/task").iterdir():
        if (task / "comm").read_text() == "vramd-engine\n":
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[1])


def test_an_idle_engine_sleeps():
    d = Daemon(*SMALL)
    d.say("a", max_tokens=4)
    d.wait_free()
    time.sleep(1)
    before = engine_wakes(d)
    time.sleep(3)
    assert engine_wakes(d) - before <= 30  # once a second; one that polls, every 10 ms, would have 300

    def seconds():
        began = time.monotonic()
        d.say("a", max_tokens=1)
        took = time.monotonic() - began
        d.wait_free()
        return took
    # Each comes at the beginning of a sleep: one that does not wake the engine waits for most of a second, always.
    assert any(seconds() < 0.5 for _ in range(40))
    d.stop()


@pytest.mark.parametrize("where", ["path", "abstract"])
def test_the_manager_is_told_of_loading_readiness_work_and_the_end(tmp_path, where):
    m = Manager(tmp_path / "notify" if where == "path" else f"@vramd-test-{os.getpid()}")
    d = Daemon(*SMALL, env={"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "200000"}, wait=False)
    m.wait("EXTEND_TIMEOUT_USEC=")
    m.wait("READY=1")
    d.wait_ready()
    assert m.wait("STATUS=") == "STATUS=0 running, 0 waiting, KV cache 0% used"
    m.wait("WATCHDOG=1")
    with d.http.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 200, "ignore_eos": True,
                                                        "stream": True}) as r:
        lines = r.iter_lines()  # kept: closing it would close the stream
        next(lines)
        assert m.wait("STATUS=1 running").startswith("STATUS=1 running, 0 waiting, KV cache ")
        for _ in range(3):
            m.wait("WATCHDOG=1")
    d.process.send_signal(signal.SIGTERM)
    m.wait("STOPPING=1")
    d.stop()


def test_a_watchdog_of_another_process_is_not_ours(tmp_path):
    m = Manager(tmp_path / "notify")
    d = Daemon(*SMALL, env={"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    m.wait("READY=1")
    time.sleep(0.4)
    d.process.send_signal(signal.SIGTERM)
    m.wait("STOPPING=1")
    assert "WATCHDOG=1" not in m.lines
    d.stop()


def test_sighup_takes_over_what_can_change_and_names_what_cannot(tmp_path):
    conf = tmp_path / "vramd.conf"
    conf.write_text("[server]\nlog_requests = true\n")
    m = Manager(tmp_path / "notify")
    d = Daemon(*SMALL, "--config", str(conf), env={"NOTIFY_SOCKET": m.path})
    m.wait("READY=1")
    d.say("a", max_tokens=1)
    d.wait_log(r"info POST /v1/completions 200")
    conf.write_text("[server]\nlog_requests = false\n[scheduler]\nmax_waiting = 7\n")
    d.process.send_signal(signal.SIGHUP)
    m.wait("RELOADING=1")
    m.wait("MONOTONIC_USEC=")
    m.wait("READY=1")
    d.wait_log('reload: log_requests has changed from "true" to "false"')
    d.wait_log('reload: max_waiting has changed from "256" to "7": that takes a restart')
    before = d.text().count("POST /v1/completions")
    d.say("a", max_tokens=1)
    conf.write_text("[server]\nlog_requests = false\n")  # as at start: nothing waits for a restart
    d.process.send_signal(signal.SIGHUP)
    m.wait("RELOADING=1")
    m.wait("READY=1")
    assert d.text().count("takes a restart") == 1
    conf.write_text("[server]\nlog_requests = maybe\n")
    d.process.send_signal(signal.SIGHUP)
    d.wait_log("error reload: nothing is taken over: .*log_requests")
    assert d.text().count("POST /v1/completions") == before
    d.say("a", max_tokens=1)
    d.stop()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd is not installed")
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_socket_that_systemd_listens_on_is_served(tmp_path, kind):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    path = str(tmp_path / "socket")
    p = subprocess.Popen(["systemd-socket-activate", "-l", path if kind == "unix" else address, "-E", "PATH", BINARY, "serve",
                          "--model", MODEL, *SMALL], stderr=subprocess.DEVNULL)
    http = httpx.Client(base_url=f"http://{address}", timeout=60,
                        transport=httpx.HTTPTransport(uds=path) if kind == "unix" else None)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                if http.get("/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < end and p.poll() is None
            time.sleep(0.05)
        r = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
        assert r.status_code == 200 and r.json()["usage"]["completion_tokens"] == 2
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(60) == 0


def test_sockets_that_cannot_be_served_are_named():
    # LISTEN_PID must be the daemon's own: the shell becomes it.
    for fds, said in (("2", "2 sockets are handed over"), ("1", "descriptor 3 is no listening stream socket")):
        r = subprocess.run(["sh", "-c", f'export LISTEN_FDS={fds} LISTEN_PID=$$; exec "$0" serve --model "$1"', BINARY,
                            MODEL], capture_output=True, text=True, timeout=60)
        assert r.returncode == 2 and said in r.stderr and "try: " in r.stderr, r.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("drop_in, most", [(None, 12), ("vramd-cuda.conf", 15)])
def test_the_units_are_sound_and_little_exposed(tmp_path, drop_in, most):
    unit = (ROOT / "systemd/vramd.service").read_text().replace("/usr/bin/vramd", BINARY)
    (tmp_path / "vramd.service").write_text(unit.replace("Documentation=man:vramd(8)\n", ""))
    shutil.copy(ROOT / "systemd/vramd.socket", tmp_path)
    if drop_in:
        (tmp_path / "vramd.service.d").mkdir()
        shutil.copy(ROOT / "systemd" / drop_in, tmp_path / "vramd.service.d")
    r = subprocess.run(["systemd-analyze", "verify", str(tmp_path / "vramd.service"), str(tmp_path / "vramd.socket")],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and not r.stderr, r.stderr
    r = subprocess.run(["systemd-analyze", "security", "--offline=true", f"--threshold={most}",
                        str(tmp_path / "vramd.service")], capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stdout
    assert ("char-nvidia:rw" in r.stdout) == bool(drop_in)


def test_the_unit_waits_for_the_drain_and_counts_exits_that_no_restart_mends(tmp_path):
    unit = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "systemd/vramd.service").read_text(), re.M))
    options = dict(re.findall(r"^#(\w+) = ?(.*)$", vramd("serve", "--print-sample").stdout, re.M))
    assert int(unit["TimeoutStopSec"]) > int(options["drain_timeout"])
    assert int(unit["LimitNOFILE"]) > 4 * int(options["max_connections"])
    write(str(tmp_path / "tiny.gguf"), "Q8_0", context=512)
    other = tmp_path / "other.gguf"
    other.write_bytes((tmp_path / "tiny.gguf").read_bytes().replace(b"llama", b"mamba"))
    for status, command in [(2, ["--no-such-option"]), (3, ["--model", "/nonexistent"]), (5, ["--model", BINARY]),
                            (6, ["--model", str(other)])]:
        assert vramd("serve", *command).returncode == status
        assert str(status) in unit["RestartPreventExitStatus"].split()


def test_a_sighup_before_there_is_anything_to_reload_is_ignored(tmp_path):
    """It reads its options, from a pipe that has none yet."""
    fifo = tmp_path / "vramd.conf"
    os.mkfifo(fifo)
    d = Daemon(*SMALL, "--config", str(fifo), wait=False)
    end = time.monotonic() + 60
    while True:
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:  # nobody reads yet
            assert time.monotonic() < end and d.process.poll() is None
            time.sleep(0.01)
    for _ in range(3):
        d.process.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    os.write(writer, b"[server]\ndrain_timeout = 5\n")
    os.close(writer)
    d.wait_ready()
    d.stop()


def test_the_threads_are_those_that_were_planned():
    def threads(**env):
        d = Daemon(*SMALL, "--threads", "1", env=env)
        try:
            return len(os.listdir(f"/proc/{d.process.pid}/task"))
        finally:
            d.stop()
    assert threads(UV_THREADPOOL_SIZE="64") == threads() == threads(UV_THREADPOOL_SIZE="-1")


def test_a_path_that_another_process_has_taken_is_left_to_it(tmp_path):
    path = str(tmp_path / "socket")
    d = Daemon(*SMALL, "--host", f"unix:{path}", wait=False)
    d.wait_log("READY: ")
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        d.stop()
        assert os.path.exists(path)
