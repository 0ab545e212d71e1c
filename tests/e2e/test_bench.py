"""vramd bench against the daemon, whose /metrics must agree with it, and against servers that misbehave."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import BINARY, vramd


def bench(tmp_path, url, *options, code=0):
    out = tmp_path / "bench.json"
    r = vramd("bench", "--url", url, "--json", str(out), *map(str, options))
    assert r.returncode == code, r.stdout + r.stderr
    return json.loads(out.read_text()), r


def counters(daemon):
    text = daemon.http.get("/metrics").text
    names = ("vramd_prompt_tokens_total", "vramd_generated_tokens_total", "vramd_time_to_first_token_seconds_count")
    return [float(re.search(rf"^{n}{{[^}}]*}} (\S+)$", text, re.M)[1]) for n in names]


@pytest.mark.parametrize("options, prompt", [
    (["--concurrency", "1,4", "--requests", 6], 48),
    (["--rate", 40, "--constant", "--requests", 12, "--endpoint", "chat"], None),
    (["--rate", 40, "--poisson", "--requests", 12, "--prompts", "text"], None),
])
def test_counts_agree_with_the_servers_metrics(daemon, tmp_path, options, prompt):
    before = counters(daemon)
    report, r = bench(tmp_path, daemon.url, *options, "--prompt-tokens", 48, "--output-tokens", 5)
    assert "TTFT" in r.stdout and r.stderr == ""
    levels = report["levels"]
    after = counters(daemon)
    assert sum(v["requests"]["ok"] for v in levels) == 12
    assert sum(v["requests"]["failed"] + v["requests"]["short"] for v in levels) == 0
    tokens = [sum(v["tokens"][k] for v in levels) for k in ("prompt", "output")]
    assert [after[0] - before[0], after[1] - before[1], after[2] - before[2]] == [*tokens, 12]
    assert tokens[1] == 12 * 5
    if prompt:
        assert tokens[0] == 12 * prompt and report["config"]["prompts"] == "ids"
    for v in levels:
        assert 0 < v["ttft_ms"]["p50"] <= v["ttft_ms"]["p99"] <= v["ttft_ms"]["max"] <= v["e2e_ms"]["max"]
        assert v["ttft_ms"]["n"] == v["tpot_ms"]["n"] == v["requests"]["ok"]
        assert v["output_tokens_per_s"] * v["wall_s"] == pytest.approx(v["tokens"]["output"], rel=1e-3)
        assert v["memory"]["start"]["budget_bytes"] == daemon.memory()["budget_bytes"]
        assert v["memory"]["end"]["peak_bytes"] <= v["memory"]["end"]["budget_bytes"]


def test_prompts_share_only_what_they_are_told_to(daemon, tmp_path):
    options = ["--requests", 4, "--prompt-tokens", 64, "--output-tokens", 2, "--seed", 20260101]
    cached = lambda *more: bench(tmp_path, daemon.url, *options, *more)[0]["levels"][0]["tokens"]["cached"]
    assert cached() == 0
    assert cached() == 4 * 48  # the same seed again: all blocks of 16 but the last
    assert cached("--prefix-share", 0.5, "--seed", 20260102) == 3 * 32


@pytest.mark.parametrize("name, text", [
    ("azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,40,3\r\n"
                  "2023-11-16 18:17:04.4799600,900,4\r\n2023-11-16 18:17:04.9799600,20,50\r\n"),
    ("mooncake.jsonl", '{"timestamp": 0, "input_length": 40, "output_length": 3, "hash_ids": [7]}\n'
                       '{"timestamp": 500, "input_length": 600, "output_length": 4, "hash_ids": [7, 8]}\n'
                       '{"timestamp": 1000, "input_length": 20, "output_length": 50, "hash_ids": [7]}\n'),
])
def test_a_trace_keeps_its_times_and_lengths(daemon, tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    report, r = bench(tmp_path, daemon.url, "--trace", tmp_path / name, "--speed", 2, "--prompt-tokens", 100,
                      "--output-tokens", 6, "--svg", tmp_path / "out.svg")
    level, = report["levels"]
    assert level["tokens"]["prompt"] == 40 + 100 + 20 and level["tokens"]["output"] == 3 + 4 + 6
    assert level["wall_s"] >= 0.5 and level["speed"] == 2
    assert (level["tokens"]["cached"] > 0) == (name == "mooncake.jsonl")
    assert (tmp_path / "out.svg").read_text().endswith("</svg>\n")


def test_a_dead_server_a_wrong_url_and_wrong_options_are_told(tmp_path):
    with socket.socket() as s:  # a port where nobody listens
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}"
        r = vramd("bench", "--url", dead)
    assert r.returncode == 12 and "is the server running?" in r.stderr
    for options, says in [(["--url", "localhost:8000"], "is not a URL"), (["--concurrency", "0"], "1 to 4096"),
                          (["--concurrency", "1.5"], "whole number"), (["--rate", "5", "--concurrency", "2"], "beside"),
                          (["--rate", "nan"], "--rate nan"), (["--requests", "-1"], "whole number"),
                          (["--speed", "2"], "without a trace"), (["--poisson"], "--rate"), (["--nope"], "--nope"),
                          (["--prompt-tokens", "0"], "--prompt-tokens 0"), (["--json"], "--json needs a value"),
                          (["--trace", "/nonexistent"], "/nonexistent"), (["--api-key-file", "/nonexistent"], "no key"),
                          (["--json", "/nonexistent/a"], "/nonexistent/a"), (["--svg", "/"], "writing /: ")]:
        r = vramd("bench", *options)
        assert r.returncode in (2, 3, 4) and says in r.stderr and "try:" in r.stderr, r.stderr


def test_libcurl_is_loaded_when_wanted_and_told_when_missing(daemon, tmp_path):
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "libmicrohttpd" in maps and "libcurl" not in maps
    for name in ("libcurl-gnutls.so.4", "libcurl.so.4"):
        (tmp_path / name).write_text("no library")
    r = subprocess.run([BINARY, "bench"], env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True)
    assert r.returncode == 3 and "libcurl cannot be loaded" in r.stderr and "apt install" in r.stderr


class Fake(BaseHTTPRequestHandler):
    """Misbehaves as its server's .way says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as servers of streams do: a small piece waits for no acknowledgement

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.server.way == "401":
            ok = self.headers.get("Authorization") == "Bearer sesame"
            return self.answer(200 if ok else 401, b'{"data":[{"id":"fake"}]}')
        self.answer(200 if self.path == "/v1/models" else 404, b'{"data":[{"id":"fake"}]}')

    def event(self, text):
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        way = self.server.way
        if self.path == "/tokenize":
            return self.answer(404, b"{}")
        with self.server.lock:
            self.server.bodies.append(body)
            n = len(self.server.bodies)
        if way == "429" and n % 2:
            return self.answer(429, b'{"error":{"message":"queue full"}}')
        if way == "html":
            return self.answer(200, b"<html>", "text/html")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.event('{"choices":[{"index":0,"text":"a"}]}')
        if way == "hang":
            time.sleep(60)
        if way == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if way == "error":
            self.event('{"error":{"message":"lost a device"}}')
        if way == "slow":
            time.sleep(0.05)
        self.event('{"choices":[{"index":0,"text":"b"}]}')
        if way != "undone":
            self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def fake():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Fake)
    server.daemon_threads, server.way, server.bodies, server.lock = True, "", [], threading.Lock()
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize("way, kind, says", [
    ("cut", "connection", ""), ("undone", "malformed", "[DONE]"), ("html", "malformed", "<html>"),
    ("error", "server", "lost a device"), ("hang", "timeout", ""),
])
def test_broken_streams_are_counted_by_kind(fake, tmp_path, way, kind, says):
    fake.way = way
    report, r = bench(tmp_path, fake.url, "--requests", 4, "--concurrency", 4, "--timeout", 0.5 if way == "hang" else 30,
                      code=1)
    level, = report["levels"]
    errors = level["errors"]
    assert level["requests"]["failed"] == errors[kind] == 4 and level["requests"]["ok"] == 0
    assert says in errors["first"] and errors["first"] and level["ttft_ms"]["n"] == 0
    assert kind in r.stdout


def test_429s_are_counted_beside_what_went_well(fake, tmp_path):
    fake.way = "429"
    report, r = bench(tmp_path, fake.url, "--requests", 10, "--concurrency", 2)
    level, = report["levels"]
    assert level["errors"]["status"] == {"429": 5} and level["requests"]["ok"] == 5
    assert level["requests"]["short"] == 5  # two tokens of 64
    assert "5 with status 429; the first: queue full" in r.stdout


def test_a_key_is_sent_and_a_wrong_one_is_told(fake, tmp_path):
    fake.way = "401"
    key = tmp_path / "key"
    key.write_text("sesame\n")
    r = vramd("bench", "--url", fake.url, "--requests", "1")
    assert r.returncode == 2 and "--api-key-file" in r.stderr
    report, r = bench(tmp_path, fake.url, "--requests", 1, "--api-key-file", key)
    assert report["levels"][0]["requests"]["ok"] == 1 and "sesame" not in r.stdout + json.dumps(report)


def test_open_loop_latency_counts_from_the_scheduled_time(fake, tmp_path):
    """40 a second for a server that hangs 50 ms in each: all start on time, whatever is in flight."""
    fake.way = "slow"
    report, _ = bench(tmp_path, fake.url, "--rate", 40, "--constant", "--duration", 0.5)
    level, = report["levels"]
    assert level["requests"]["ok"] == 20 and 0.475 + 0.05 <= level["wall_s"]
    assert level["itl_ms"]["p50"] >= 49 and level["e2e_ms"]["p50"] >= level["start_delay_ms"]["p50"] + 49
    bodies = fake.bodies
    assert len({b["prompt"] for b in bodies}) == 20 and all(len(b["prompt"].split()) == 128 for b in bodies)
    assert all(b["ignore_eos"] and b["stream"] and b["stream_options"]["include_usage"] for b in bodies)


def test_an_interrupt_ends_with_what_was_measured(fake, tmp_path):
    out = tmp_path / "bench.json"
    fake.way = "slow"
    p = subprocess.Popen([BINARY, "bench", "--url", fake.url, "--requests", "1000", "--json", str(out)],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(fake.bodies) < 3:
        time.sleep(0.01)
    fake.way = "hang"
    n = len(fake.bodies)
    while len(fake.bodies) < n + 1:
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    stdout, stderr = p.communicate(timeout=20)
    assert p.returncode == 130 and "(interrupted)" in stdout, stderr
    report = json.loads(out.read_text())
    level, = report["levels"]
    assert report["interrupted"] and level["requests"]["aborted"] == 1 and level["requests"]["failed"] == 0
    assert level["requests"]["ok"] == len(fake.bodies) - 1 >= 2


def test_progress_is_shown_on_a_terminal_alone(fake):
    fake.way = "slow"
    master, slave = pty.openpty()
    p = subprocess.Popen([BINARY, "bench", "--url", fake.url, "--requests", "12"], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    stdout, _ = p.communicate(timeout=20)
    os.close(master)
    assert p.returncode == 0 and b"/12 done" in seen and b"TTFT" in stdout
