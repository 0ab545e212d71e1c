"""vramd top: on a terminal that changes its size, in a pipe, and against servers that go away or refuse."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from harness import BINARY, OPTIONS, Daemon, vramd
from test_keys import make

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Screen:
    """vramd top on a terminal; read() until a pattern comes."""

    def __init__(self, url, *options, size=(24, 80)):
        self.master, slave = pty.openpty()
        self.resize(size, slave)
        self.before = termios.tcgetattr(slave)
        self.seen = b""
        self.slave = slave  # held open: what the terminal is left in is looked at
        self.process = subprocess.Popen([BINARY, "top", url, "--interval", "0.2", *options], stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True)

    def resize(self, size, fd=None):
        fcntl.ioctl(self.master if fd is None else fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        if fd is None:
            self.process.send_signal(signal.SIGWINCH)

    def read(self, pattern, seconds=30):
        end = time.monotonic() + seconds
        while not (m := re.search(pattern, self.seen, re.S)):
            assert time.monotonic() < end, self.seen[-3000:]
            self.more()
        self.seen = self.seen[m.end():]
        return m

    def more(self, wait=0.2):
        if select.select([self.master], [], [], wait)[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.master, 65536)

    def frame(self):
        """One whole frame as lines of text, without what only a terminal sees."""
        self.read(rb"\x1b\[H")
        m = self.read(rb"\A(.*?)\x1b\[J")
        return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", m[1]).decode().replace("\r\n", "\n").split("\n")

    def until(self, right, seconds=60):
        end = time.monotonic() + seconds
        while not right(lines := self.frame()):
            assert time.monotonic() < end, lines
        return lines

    def close(self):
        """What is left: (exit code, whether the terminal is as it was)."""
        code = self.process.wait(20)
        self.more(0)
        same = termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.master)
        return code, same


@contextlib.contextmanager
def screen(url, *options, **more):
    s = Screen(url, *options, **more)
    try:
        yield s
    finally:
        if s.process.poll() is None:
            s.process.kill()
            s.process.wait()


def test_a_frame_shows_what_runs_and_fits_every_size(daemon):
    done = threading.Event()

    def stream():
        with daemon.http.stream("POST", "/v1/completions", json={
                "prompt": [9] * 100, "max_tokens": 900, "ignore_eos": True, "stream": True}) as r:
            for _ in r.iter_lines():
                if done.is_set():
                    break

    t = threading.Thread(target=stream)
    t.start()
    try:
        with screen(daemon.url) as s:
            s.read(re.escape(ENTER))
            s.until(lambda lines: any(re.search(r"^ +\d+  running +\d+", x) for x in lines))
            for size in ((24, 80), (50, 132), (10, 40), (3, 20), (1, 1), (24, 80)):
                s.resize(size)
                s.until(lambda lines: len(lines) <= size[0] and max(map(len, lines)) <= size[1])
                if size == (50, 132):
                    lines = s.until(lambda lines: len(lines) > 20 and max(map(len, lines)) > 80)
                    assert any(x.startswith("weights ") for x in lines)
                    assert "1 running" in lines[0] and any("SEQUENCE" in x for x in lines)
            s.until(lambda lines: re.search(r"^[1-9]\d* tokens/s", lines[1]))
            done.set()
            os.write(s.master, b"q")
            s.read(re.escape(LEAVE))
            assert s.close() == (0, True)
    finally:
        done.set()
        t.join()
    daemon.wait_free()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT])
def test_every_signal_leaves_the_terminal_as_it_was(daemon, number):
    with screen(daemon.url) as s:
        s.read(re.escape(ENTER))
        assert termios.tcgetattr(s.slave) != s.before
        s.process.send_signal(number)
        s.read(re.escape(LEAVE))
        assert s.close() == (-number, True)


def test_a_stop_gives_the_terminal_back_and_a_continuation_takes_it(daemon):
    with screen(daemon.url) as s:
        s.read(re.escape(ENTER))
        s.process.send_signal(signal.SIGTSTP)
        s.read(re.escape(LEAVE))
        assert termios.tcgetattr(s.slave) == s.before
        time.sleep(0.3)
        s.process.send_signal(signal.SIGCONT)
        s.read(re.escape(ENTER))
        s.frame()
        os.write(s.master, b"q")
        s.read(re.escape(LEAVE))
        assert s.close() == (0, True)


def test_a_server_that_goes_and_comes_back_is_waited_for():
    d = Daemon(*OPTIONS, "--no-log-requests")
    with screen(d.url) as s:
        s.read(b"tokens/s")
        d.stop()
        s.read(rb"as of \d+ s ago: http://127.0.0.1:\d+/v1/memory: ")
        assert s.process.poll() is None
        again = Daemon(*OPTIONS, "--port", str(d.port), "--no-log-requests")
        s.read(b"tokens/s")
        os.write(s.master, b"q")
        s.read(re.escape(LEAVE))
        assert s.close() == (0, True)
        again.stop()


def test_once_is_one_frame_without_escapes(daemon):
    r = vramd("top", daemon.url, "--once", "--interval", "0.1")
    assert r.returncode == 0 and r.stderr == "" and "\x1b" not in r.stdout
    lines = r.stdout.splitlines()
    assert lines[0].startswith("vramd top  " + daemon.url) and max(map(len, lines)) <= 120
    for name in ("weights", "kv", "requests", "total", "kv F16", "  SEQUENCE"):
        assert any(x.startswith(name + " ") for x in lines), (name, lines)


def test_json_has_the_servers_account_and_rates(daemon):
    r = vramd("top", daemon.url, "--once", "--json", "--interval", "0.1")
    doc = json.loads(r.stdout)
    assert r.returncode == 0 and doc["rates"]["seconds"] >= 0.1
    m = daemon.memory()
    assert doc["memory"]["plan_bytes"] == m["plan_bytes"] and doc["memory"].keys() == m.keys()
    p = subprocess.Popen([BINARY, "top", daemon.url, "--json", "--interval", "0.1"], stdout=subprocess.PIPE, text=True)
    docs = [json.loads(p.stdout.readline()) for _ in range(3)]
    p.stdout.close()  # whoever reads has gone: it ends by SIGPIPE
    assert p.wait(20) == -signal.SIGPIPE
    assert docs[0]["rates"] is None and docs[2]["rates"]["seconds"] > 0


def test_in_a_pipe_frames_follow_one_another(daemon):
    p = subprocess.Popen([BINARY, "top", daemon.url, "--interval", "0.1"], stdout=subprocess.PIPE, text=True)
    heads = 0
    for line in p.stdout:
        assert "\x1b" not in line
        heads += line.startswith("vramd top ")
        if heads == 3:
            break
    p.terminate()
    p.stdout.close()
    assert p.wait(20) in (-signal.SIGTERM, -signal.SIGPIPE)


@pytest.mark.parametrize("url, code, text", [
    ("127.0.0.1:8000", 2, "is not a URL like"), ("ftp://x", 2, "is not a URL like"), ("unix:sock", 2, "is not a URL like"),
    ("http://127.0.0.1:1", 12, "127.0.0.1:1/v1/memory"), ("unix:/nowhere.sock", 12, "is the server running"),
    ("http://no-such-host.invalid", 12, "no-such-host"),
])
def test_a_bad_url_is_refused_before_anything_is_drawn(url, code, text):
    r = vramd("top", url)
    assert r.returncode == code and text in r.stderr and r.stdout == "", r
    with screen(url) as s:
        s.read(text.encode())
        assert ENTER not in s.seen and s.process.wait(20) == code


@pytest.mark.parametrize("options, text", [
    (["--interval", "0"], "--interval"), (["--interval", "x"], "--interval"), (["--bogus"], "no option --bogus"),
    (["http://a", "http://b"], "http://b"), (["--api-key-file"], "needs a value"), (["--api-key-file", "/nowhere"], "no key in"),
])
def test_bad_options_are_refused(options, text):
    r = vramd("top", *options)
    assert r.returncode in (2, 4) and text in r.stderr, r


def test_a_key_is_sent_and_refused(tmp_path):
    (key, line), (other, _) = make("alice"), make("bob")
    (tmp_path / "keys").touch(0o600)
    (tmp_path / "keys").write_text(line)
    (tmp_path / "key").write_text(key + "\n")
    (tmp_path / "other").write_text(other + "\n")
    d = Daemon(*OPTIONS, "--api-keys-file", str(tmp_path / "keys"))
    try:
        for options in ([], ["--api-key-file", str(tmp_path / "other")]):
            r = vramd("top", d.url, "--once", *options)
            assert r.returncode == 2 and "refuses the API key (status 401)" in r.stderr and "--api-key-file" in r.stderr, r
        r = vramd("top", d.url, "--once", "--interval", "0.1", "--api-key-file", str(tmp_path / "key"))
        assert r.returncode == 0 and "weights" in r.stdout
    finally:
        d.stop()


def test_a_unix_socket_is_an_address(tmp_path):
    path = tmp_path / "vramd.sock"
    d = Daemon(*OPTIONS, "--host", f"unix:{path}", wait=False)
    try:
        d.wait_log("READY")
        r = vramd("top", f"unix:{path}", "--once", "--interval", "0.1")
        assert r.returncode == 0 and "weights" in r.stdout, r
        r = vramd("bench", "--url", f"unix:{path}", "--requests", "2", "--output-tokens", "2")
        assert r.returncode == 0 and "TTFT" in r.stdout, r
    finally:
        d.stop()
