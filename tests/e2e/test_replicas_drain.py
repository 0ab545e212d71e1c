"""What a proxy meets when a replica stops: a grace in which it still serves, a 503 that may be repeated elsewhere, no
reset of a connection that waited; and two daemons on one socket, one after the other."""

import concurrent.futures
import json
import re
import signal
import socket
import time

import httpx

from harness import Daemon
from tiny_model import write

SMALL = ["--max-model-len", "256", "--max-num-seqs", "8", "--kv-cache-tokens", "2048", "--threads", "1"]
BODY = {"prompt": "a", "max_tokens": 2, "temperature": 0}


def tiny(tmp_path):
    path = str(tmp_path / "tiny.gguf")
    write(path, "Q8_0", context=512)
    return ["--model", path, *SMALL]


def test_a_leaving_replica_serves_during_its_grace(tmp_path):
    d = Daemon(*tiny(tmp_path), "--drain-grace", "600")
    r = d.http.post("/v1/completions", json=BODY)
    assert r.status_code == 200 and "connection" not in r.headers
    d.process.send_signal(signal.SIGTERM)
    d.wait_log("draining: requests are accepted for 600 s more, /health says 503")
    for _ in range(20):
        for path in ("/health", "/ready", "/ping"):
            probe = d.http.get(path)
            assert probe.status_code == 503 and "draining" in probe.text, path
        assert d.http.get("/livez").status_code == 200
        assert re.search(r'^vramd_ready\{.*\} 0$', d.http.get("/metrics").text, re.M)
        # On a new connection each time: the answer ends it.
        r = d.http.post("/v1/completions", json=BODY)
        assert r.status_code == 200 and r.headers["connection"].lower() == "close"
    d.process.send_signal(signal.SIGTERM)  # a second signal ends the grace
    assert d.process.wait(60) == 0
    d.stop()


def test_a_grace_is_as_long_as_it_says(tmp_path):
    d = Daemon(*tiny(tmp_path), "--drain-grace", "1")
    began = time.monotonic()
    d.process.send_signal(signal.SIGTERM)
    d.wait_log("draining: no new requests")
    assert time.monotonic() - began >= 1  # counted from before the signal: only the server can be early
    d.stop()


def test_connections_that_wait_for_a_stopping_server_are_answered(tmp_path):
    d = Daemon(*tiny(tmp_path), "--max-connections", "400")
    d.process.send_signal(signal.SIGSTOP)
    waiting = []
    for _ in range(300):
        s = socket.create_connection(("127.0.0.1", d.port), timeout=30)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\n"
                  b'{"prompt": "abc"}')
        waiting.append(s)
    d.process.send_signal(signal.SIGTERM)
    d.process.send_signal(signal.SIGCONT)
    for s in waiting:
        assert re.match(rb"HTTP/1.1 (200|429|503) ", s.recv(100))  # and no reset
        s.close()
    d.stop()


def test_a_new_connection_may_still_send_its_request(tmp_path):
    d = Daemon(*tiny(tmp_path))
    s = socket.create_connection(("127.0.0.1", d.port), timeout=30)
    while not re.search(r"^vramd_http_connections\{.*\} 2$", d.http.get("/metrics").text, re.M):
        time.sleep(0.01)  # until it is accepted
    d.process.send_signal(signal.SIGTERM)
    d.wait_log("draining: no new requests")
    s.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert s.recv(100).startswith(b"HTTP/1.1 503 ")
    s.close()
    d.stop()


def test_a_draining_replica_says_503_in_every_api(tmp_path):
    """nginx and HAProxy repeat it elsewhere; they would not repeat Anthropic's 529."""
    path = str(tmp_path / "tiny.gguf")
    write(path, "Q8_0", context=1024)
    d = Daemon("--model", path, *SMALL, "--max-model-len", "1024", "--ollama-api", "--stream-credits", "1")
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    bodies = {"/v1/completions": BODY, "/v1/chat/completions": chat, "/v1/messages": chat, "/v1/responses": {"input": "a"},
              "/completion": {"prompt": "a"}, "/api/generate": {"model": "tiny", "prompt": "a"}}
    kept = {path: httpx.Client(base_url=d.url, timeout=60) for path in bodies}
    for http in kept.values():
        http.get("/livez")
    # A stream whose client does not read, so that the server goes on draining.
    running = socket.socket()
    running.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    running.connect(("127.0.0.1", d.port))
    body = json.dumps({**BODY, "max_tokens": 1000, "ignore_eos": True, "stream": True, "logprobs": 5}).encode()
    running.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert running.recv(12) == b"HTTP/1.1 200"
    d.process.send_signal(signal.SIGTERM)
    d.wait_log("draining: no new requests")
    for path, http in kept.items():
        r = http.post(path, json=bodies[path])
        assert (r.status_code, r.headers["connection"].lower()) == (503, "close") and int(r.headers["retry-after"]) >= 1, path
        http.close()
    got = b""
    while part := running.recv(65536):
        got += part
    assert got.rstrip().endswith(b"data: [DONE]\n\n\r\n0") and d.process.wait(60) == 0
    running.close()
    d.stop()


def test_a_successor_takes_an_inherited_socket_over_without_a_refusal(tmp_path):
    """Both have the socket, as with Sockets= in two units: the new one accepts once it is loaded, the old one drains."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    options = tiny(tmp_path)

    def start():
        # Descriptor 3 it must be, and LISTEN_PID the daemon's own: the shell becomes it.
        shell = f'exec 3<&{listening.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        return Daemon(*options, wait=False, under=("bash", "-c", shell, "bash"), pass_fds=(listening.fileno(),))

    failed, sent, stop = [], 0, False

    def client():
        nonlocal sent
        http = httpx.Client(base_url=url, timeout=60, headers={"Connection": "close"})
        while not stop:
            try:
                r = http.post("/v1/completions", json=BODY)
                if r.status_code != 200:
                    failed.append(r.text)
            except httpx.HTTPError as e:
                failed.append(repr(e))
            sent += 1
    old = start()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]  # the first ones wait for the model: no 503
        for _ in range(4):
            old.wait_log("READY: ")
            new = start()
            new.wait_log("READY: ")
            time.sleep(0.3)
            old.process.send_signal(signal.SIGTERM)
            assert old.process.wait(60) == 0
            old.stop()
            old = new
        stop = True
        for c in clients:
            c.result()
    assert not failed and sent >= 8, (failed[:3], sent)
    old.stop()
    listening.close()
