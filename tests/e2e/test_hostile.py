"""Clients and surroundings that mean no good: slow senders, requests that two servers would read differently, sockets
half closed, crowds of idle streams, no descriptors left, logs that nobody takes. Others are served meanwhile, and
afterwards nothing is held."""

import contextlib
import json
import os
import random
import re
import resource
import socket
import struct
import subprocess
import time

import gguf
import httpx
import numpy as np
import pytest

from harness import BINARY, MODEL, SANITIZED, Daemon, vramd
from test_load import counter
from tiny_model import write

IDLE = int(os.environ.get("IDLE_STREAMS", 1000))
HEAD = "POST /tokenize HTTP/1.1\r\nHost: x\r\n"
BODY = '{"prompt":"a"}'
NEXT = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = f"Content-Length: {len(BODY)}"
FOREVER = {"prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    write(path, "Q8_0", context=512)
    return path


@contextlib.contextmanager
def serving(model, *options, **more):
    d = Daemon("--model", model, "--threads", "1", "--max-num-seqs", "4", *options, **more)
    try:
        yield d
        d.wait_free()
        assert d.memory()["sequences"] == []
    finally:
        d.stop()


@pytest.fixture(scope="module")
def server(model):
    with serving(model, "--max-connections", "256") as d:
        yield d


def dial(d):
    return socket.create_connection(("127.0.0.1", d.port), timeout=60)


def post(body):
    text = json.dumps(body)
    return f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def until_closed(s):
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := s.recv(65536):
            got += chunk
    return got


def received(s):
    """What is there of a socket that does not block; b"": closed; None: nothing now."""
    try:
        return s.recv(65536)
    except BlockingIOError:
        return None


def eventually(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- framing ----

TWO_LENGTHS = f"{LENGTH}\r\nContent-Length: 3\r\n\r\n{BODY}"
REFUSED = {
    "TE and CL": HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "CL and TE": HEAD + "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two CL": HEAD + TWO_LENGTHS,
    "two equal CL": HEAD + f"{LENGTH}\r\n{LENGTH}\r\n\r\n{BODY}",
    "CL list": HEAD + f"Content-Length: {len(BODY)}, {len(BODY)}\r\n\r\n{BODY}",
    "CL with a sign": HEAD + f"Content-Length: +{len(BODY)}\r\n\r\n{BODY}",
    "negative CL": HEAD + f"Content-Length: -1\r\n\r\n{BODY}",
    "hexadecimal CL": HEAD + f"Content-Length: 0xe\r\n\r\n{BODY}",
    "CL beyond 64 bits": HEAD + f"Content-Length: 18446744073709551616\r\n\r\n{BODY}",
    "blank before the colon": HEAD + f"Content-Length : {len(NEXT)}\r\n\r\n",
    "another encoding": HEAD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not the last": HEAD + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "VT before chunked": HEAD + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": "POST /tokenize HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded TE": HEAD + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded line": HEAD + f"X-A: b\r\n Content-Length: {len(NEXT)}\r\n\r\n",
    "no name": f"GET /health HTTP/1.1\r\nHost: x\r\n: a\r\n{NEXT}",
    "a colon alone": f"GET /health HTTP/1.1\r\nHost: x\r\n:\r\n{NEXT}",
    "NUL before a name": f"GET /health HTTP/1.1\r\nHost: x\r\n\0X-A: a\r\n{NEXT}",
    "bare LF for the empty line": f"GET /health HTTP/1.1\r\nHost: x\r\n\n{NEXT}",
    "an empty name first": f"GET /health HTTP/1.1\r\n: a\r\nHost: x\r\n\r\n",
    "an empty name last": "GET /health HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
    "a blank for a name": f"GET /health HTTP/1.1\r\nHost: x\r\n : a\r\n{NEXT}",
    "NUL for a name": f"GET /health HTTP/1.1\r\nHost: x\r\n\0: a\r\n{NEXT}",
    "NUL for the empty line": "GET /health HTTP/1.1\r\nHost: x\r\n\0\r\n",
    "NUL after a value": "GET /health HTTP/1.1\r\nX-A: a\0\r\nHost: x\r\n\r\n",
    "NUL after the last value": "GET /health HTTP/1.1\r\nHost: x\0\r\n\r\n",
    "NULs for CR LF": "GET /health HTTP/1.1\r\nX-A: a\0\0Host: x\r\n\r\n",
    "NUL after CL": f"POST /tokenize HTTP/1.1\r\n{LENGTH}\0\r\nHost: x\r\n\r\n{BODY}",
    "NUL after the last CL": HEAD + f"{LENGTH}\0\r\n\r\n{BODY}",
    "NUL after chunked": f"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\0\r\nHost: x\r\n\r\ne\r\n{BODY}\r\n0\r\n\r\n",
    "NUL after the last chunked": HEAD + f"Transfer-Encoding: chunked\0\r\n\r\ne\r\n{BODY}\r\n0\r\n\r\n",
    "NUL for a value": "GET /health HTTP/1.1\r\nX-A: \0\r\nHost: x\r\n\r\n",
    "NUL and blanks after a value": "GET /health HTTP/1.1\r\nX-A: a \0 \r\nHost: x\r\n\r\n",
    "bare LF after the last header": "GET /health HTTP/1.1\r\nHost: x\n\r\n",
    "bare LF at the end": "GET /health HTTP/1.1\r\nHost: x\r\n\n",
    "bare LF after blanks": "GET /health HTTP/1.1\r\nX-A: \nHost: x\r\n\r\n",
    "hosts in two cases": "GET /health HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n",
    "CL in two cases": HEAD + f"{LENGTH}\r\ncontent-length: 3\r\n\r\n{BODY}",
    "bare LF": "GET /health HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": "GET /health HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n",
    "bare CR": "GET /health HTTP/1.1\r\nHost: x\rX-A: b\r\n\r\n",
    "NUL in a value": "GET /health HTTP/1.1\r\nX-A: a\0b\r\nHost: x\r\n\r\n",
    "NUL in the last value": "GET /health HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
    "NUL in a name": HEAD + f"Content-\0Length: {len(NEXT)}\r\n\r\n",
    "NUL in the target": "GET /health\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "%00 in the target": "GET /health%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no colon": "GET /health HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "absolute target": "GET http://y/health HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority": "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank in the target": "GET /hea lth HTTP/1.1\r\nHost: x\r\n\r\n",
    "tabs in the request line": "GET\t/health\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "two blanks in the request line": "GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank after the version": "GET /health HTTP/1.1 \r\nHost: x\r\n\r\n",
    "HTTP/0.9": "GET /health\r\n\r\n",
    "HTTP/1.2": "GET /health HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/1.10": "GET /health HTTP/1.10\r\nHost: x\r\n\r\n",
    "http/1.1": "GET /health http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two hosts": "GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "a list of hosts": "GET /health HTTP/1.1\r\nHost: x,y\r\n\r\n",
    "a host with a path": "GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "two keys": "GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two keys of the other kind": "GET /health HTTP/1.1\r\nHost: x\r\nX-Api-Key: a\r\nX-Api-Key: b\r\n\r\n",
    "no CL": HEAD + f"Content-Length:\r\n\r\n{BODY}",
    "a blank in CL": HEAD + f"Content-Length: 1 4\r\n\r\n{BODY}",
    "FF after CL": HEAD + f"{LENGTH}\x0c\r\n\r\n{BODY}",
    "two encodings": HEAD + f"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{BODY}\r\n0\r\n\r\n",
    "folded first line": f"POST /tokenize HTTP/1.1\r\n {LENGTH}\r\nHost: x\r\n\r\n{BODY}",
    "no size of a chunk": HEAD + f"Transfer-Encoding: chunked\r\n\r\n\r\n{BODY}\r\n0\r\n\r\n",
    "blank before a chunk": HEAD + f"Transfer-Encoding: chunked\r\n\r\n e\r\n{BODY}\r\n0\r\n\r\n",
    "blank after the size": HEAD + f"Transfer-Encoding: chunked\r\n\r\ne \r\n{BODY}\r\n0\r\n\r\n",
    "LF in an extension": HEAD + f"Transfer-Encoding: chunked\r\n\r\ne;a\nb\r\n{BODY}\r\n0\r\n\r\n",
    "a trailer that is none": HEAD + f"Transfer-Encoding: chunked\r\n\r\ne\r\n{BODY}\r\n0\r\nnonsense\r\n\r\n",
    "negative chunk": HEAD + f"Transfer-Encoding: chunked\r\n\r\n-1\r\n{BODY}\r\n0\r\n\r\n",
    "0x before a chunk": HEAD + f"Transfer-Encoding: chunked\r\n\r\n0xe\r\n{BODY}\r\n0\r\n\r\n",
    "chunk beyond 64 bits": HEAD + f"Transfer-Encoding: chunked\r\n\r\n1000000000000000e\r\n{BODY}\r\n0\r\n\r\n",
    "chunk longer than it says": HEAD + f"Transfer-Encoding: chunked\r\n\r\n3\r\n{BODY}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_another_server_may_read_otherwise_ends_the_connection(server, name):
    """The request after it must find nobody: it may be part of this one's body for somebody else."""
    with dial(server) as s:
        s.settimeout(10)  # not until idle_timeout
        s.sendall((REFUSED[name] + NEXT).encode("latin-1"))
        got = until_closed(s)
    assert b"smuggled" not in got and b" 200 " not in got, got
    assert got == b"" or re.match(rb"HTTP/1\.[01] (400|413|501|505) ", got), got


ACCEPTED = {
    "tab before a value": HEAD + f"Content-Length:\t{len(BODY)}\r\n\r\n{BODY}",
    "no blank before a value": HEAD + f"Content-Length:{len(BODY)}\r\n\r\n{BODY}",
    "an empty value": HEAD + f"X-A:\r\nX-B: \r\n{LENGTH}\r\n\r\n{BODY}",
    "blanks after a value": HEAD + f"X-A: b \t \r\n{LENGTH}\r\n\r\n{BODY}",
    "an empty value last": HEAD + f"{LENGTH}\r\nX-A:\r\n\r\n{BODY}",
    "blanks after a host": f"POST /tokenize HTTP/1.1\r\nHost: x \t\r\n{LENGTH}\r\n\r\n{BODY}",
    "zeros before a length": HEAD + f"Content-Length: 000{len(BODY)}\r\n\r\n{BODY}",
    "an empty line first": "\r\n" + HEAD + f"{LENGTH}\r\n\r\n{BODY}",
    "HTTP/1.0 that stays": f"POST /tokenize HTTP/1.0\r\nConnection: keep-alive\r\n{LENGTH}\r\n\r\n{BODY}",
    "long headers": HEAD + "".join(f"X-{i}: {'y' * 900}\r\n" for i in range(8)) + f"{LENGTH}\r\n\r\n{BODY}",
    "a body that is not looked at": f"GET /health HTTP/1.1\r\nHost: x\r\n{LENGTH}\r\n\r\n{BODY}",
}


@pytest.mark.parametrize("pieces", [1 << 20, 7], ids=["at once", "in pieces"])
def test_what_all_read_alike_is_served_and_so_is_the_next(server, pieces):
    for name, text in ACCEPTED.items():
        text += "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with dial(server) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(0, len(text), pieces):
                s.sendall(text[i:i + pieces].encode())
            got = until_closed(s)
        assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"200", b"200"], (name, got)


CHUNKED = {
    "plain": f"e\r\n{BODY}\r\n0\r\n\r\n",
    "extension": f'e;a="b"\r\n{BODY}\r\n0\r\n\r\n',
    "long extension": f"e;a={'b' * 9000}\r\n{BODY}\r\n0\r\n\r\n",
    "CR in an extension": f"e;a\rb\r\n{BODY}\r\n0\r\n\r\n",
    "zeros before a size": f"{'0' * 40}e\r\n{BODY}\r\n000\r\n\r\n",
    "LF after a size": f"e\n{BODY}\r\n0\r\n\r\n",
    "LF after a chunk": f"e\r\n{BODY}\n0\r\n\r\n",
    "LF at the end": f"e\r\n{BODY}\r\n0\r\nX-A: b\n\n",
    "trailers": f"e\r\n{BODY}\r\n0\r\nX-A: b\r\nContent-Length: {len(NEXT)}\r\nHost: y\r\nAuthorization: Bearer z\r\n\r\n",
}


def test_a_chunked_body_is_the_last_of_its_connection(server):
    """Where it ends is read in more than one way: what follows it must not be read as a request. libmicrohttpd 1.0 refuses some."""
    strict = int(re.search(r"^libmicrohttpd: (\d+)", vramd("version").stdout, re.M)[1]) >= 1
    for name, text in CHUNKED.items():
        with dial(server) as s:
            s.sendall((HEAD + "Transfer-Encoding: chunked\r\n\r\n" + text + NEXT).encode())
            got = until_closed(s)
        status = re.findall(rb"HTTP/1\.[01] (\d+) ", got)
        refused = strict and ("LF" in name or "extension" in name) and status == [b"400"]
        assert (status == [b"200"] or refused) and b"Connection: close" in got, (name, got)


def test_too_many_headers_and_trailers_are_refused(server):
    crowds = ["GET /health HTTP/1.1\r\nHost: x\r\n" + "A:\r\n" * n + "\r\n" for n in (1500, 4500)]
    crowds += [HEAD + f"Transfer-Encoding: chunked\r\n\r\ne\r\n{BODY}\r\n0\r\n" + trailer + "\r\n"
               for trailer in ("X-A: b\r\n" * 1000, f"X-A: {'b' * 20000}\r\n")]
    for text in crowds:
        with dial(server) as s:
            with contextlib.suppress(ConnectionError):
                s.sendall((text + NEXT).encode())
            got = until_closed(s)
        assert got == b"" or (got.startswith(b"HTTP/1.1 431 ") and b"smuggled" not in got), got


def test_requests_in_one_piece_are_answered_one_by_one(server):
    stream = post({"prompt": "a", "max_tokens": 3, "ignore_eos": True, "stream": True})
    one = f"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".encode() + (HEAD + f"{LENGTH}\r\n\r\n{BODY}").encode() + stream
    last = NEXT.replace("Host", "Connection: close\r\nHost").encode()
    with dial(server) as s:
        s.sendall(one * 20 + last)
        got = until_closed(s)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"200"] * 60 + [b"404"] and got.count(b"data: [DONE]") == 20


def test_http_1_0_gets_no_chunks_and_its_end_is_the_connections(server):
    text = post({"prompt": "a", "max_tokens": 3, "ignore_eos": True, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0")
    with dial(server) as s:
        s.sendall(text.replace(b"Host", b"Connection: keep-alive\r\nHost") + NEXT.encode())
        got = until_closed(s)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"chunked" not in head and body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n"), got


def test_a_body_is_asked_for_only_where_it_will_be_read(server):
    def ask(head, body=BODY):
        with dial(server) as s:
            s.sendall((head + "Expect: 100-continue\r\nConnection: close\r\n\r\n").encode())
            first = s.recv(4096)
            if first == b"HTTP/1.1 100 Continue\r\n\r\n":
                s.sendall(body.encode())
                first += until_closed(s)
            return re.findall(rb"HTTP/1\.1 (\d+) ", first)

    assert ask(HEAD + f"{LENGTH}\r\n") == [b"100", b"200"]
    assert ask(HEAD + "Content-Length: 99999999\r\n") == [b"413"]
    assert ask(f"POST /nothing HTTP/1.1\r\nHost: x\r\n{LENGTH}\r\n") == [b"404"]


def test_after_an_error_the_requests_behind_it_are_answered_in_order(server):
    bad = HEAD + "Content-Length: 1\r\n\r\n{"
    good = HEAD + f"{LENGTH}\r\n\r\n{BODY}"
    with dial(server) as s:
        s.sendall((bad + good + "GET /no HTTP/1.1\r\nHost: x\r\n\r\n" + good.replace("Host", "Connection: close\r\nHost")).encode())
        assert re.findall(rb"HTTP/1\.1 (\d+) ", until_closed(s)) == [b"400", b"200", b"404", b"200"]


# ---- slow and half gone ----

def test_senders_of_a_byte_at_a_time_lose_their_connection_and_others_wait_for_none(model):
    with serving(model, "--header-timeout", "1", "--body-timeout", "1", "--max-connections", "64") as d:
        kinds = ["GET /health HTTP/1.1\r\nX-A: " + "y" * 4000, HEAD + "Content-Length: 4000\r\n\r\n" + "y" * 4000,
                 HEAD + "Transfer-Encoding: chunked\r\n\r\n" + "1\r\ny\r\n" * 800]
        slow = {dial(d): [text, text.find("\r\n\r\n") + 4 if "\r\n\r\n" in text else 1] for text in kinds for _ in range(16)}
        for s, (text, at) in slow.items():
            s.sendall(text[:at].encode())
            s.setblocking(False)
        served, sent = 0, 0
        while slow:
            assert d.http.get("/health").status_code == 200
            served += 1
            for s in list(slow):
                text, at = slow[s]
                try:
                    s.send(text[at:at + 1].encode())
                    slow[s][1] = at + 1
                    sent += 1
                    gone = s.recv(4096) == b""
                except BlockingIOError:
                    gone = False
                except ConnectionError:
                    gone = True
                if gone:
                    s.close()
                    del slow[s]
            time.sleep(0.05)
        assert served > 3 and sent < 48 * 2000  # none of them came to its end
        eventually(lambda: counter(d, "vramd_http_connections") <= 2)


@pytest.mark.parametrize("part", ["half a head", "a head", "half a body", "half a chunk"])
def test_whoever_leaves_in_a_request_is_gone_at_once(model, part):
    """libmicrohttpd overlooks an end that comes together with the bytes before it, until the head or body is due."""
    text = {"half a head": "GET /health HTTP/1.1\r\nHo", "a head": HEAD + LENGTH + "\r\n\r\n",
            "half a body": HEAD + LENGTH + "\r\n\r\n" + BODY[:5],
            "half a chunk": HEAD + "Transfer-Encoding: chunked\r\n\r\ne\r\n" + BODY[:5]}[part]
    with serving(model, "--max-connections", "400") as d:
        for _ in range(300):
            with dial(d) as s:
                s.sendall(text.encode())
        eventually(lambda: counter(d, "vramd_http_connections") <= 2, 3)  # far before header_timeout
        requests = next(c for c in d.memory()["classes"] if c["class"] == "requests")
        assert d.http.get("/health").status_code == 200 and requests["ledger_bytes"] == requests["plan_bytes"]


@pytest.mark.parametrize("kind", ["idle after a request", "silent", "half a head"])
def test_when_all_places_are_taken_the_longest_idle_makes_one(kind):
    """A probe is answered whoever keeps connections; who works keeps his."""
    text = {"idle after a request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "silent": b"", "half a head": b"GET /"}[kind]
    with serving(MODEL, "--max-connections", "16", "--header-timeout", "60", "--max-model-len", "4096") as d, dial(d) as stream:
        d.http.close()  # its connection would be one of them
        stream.sendall(post({**FOREVER, "max_tokens": 4000}))  # takes its time with this model
        stream.recv(100)
        crowd = []
        for _ in range(15):
            crowd.append(dial(d))
            crowd[-1].sendall(text)
            if kind == "idle after a request":
                assert crowd[-1].recv(1000).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        for _ in range(20):
            assert httpx.get(d.url + "/health", timeout=20).status_code == 200
        assert time.monotonic() - began < 30  # idle_timeout and header_timeout are 60
        crowd[0].settimeout(1)
        assert until_closed(crowd[0]) == b""  # the first that came
        stream.setblocking(False)
        while (last := received(stream)) is not None:
            assert last != b"" and b"[DONE]" not in last
        stream.setblocking(True)
        assert stream.recv(1000)
        stream.close()
        d.http = httpx.Client(base_url=d.url, timeout=120)


def test_whoever_closes_half_a_socket_anywhere_frees_all_of_it(model):
    whole = post(FOREVER)
    with serving(model, "--header-timeout", "1", "--body-timeout", "1") as d:
        for cut in (0, 1, 10, 60, whole.index(b"\r\n\r\n") + 4, len(whole) - 1, len(whole)):
            with dial(d) as s:
                s.sendall(whole[:cut])
                if cut == len(whole):
                    assert s.recv(1000).startswith(b"HTTP/1.1 200")
                s.shutdown(socket.SHUT_WR)
                until_closed(s)
        eventually(lambda: counter(d, "vramd_http_connections") <= 2)


def test_streams_that_are_left_give_back_their_places_whoever_else_is_idle(model):
    """libmicrohttpd looks for closed connections behind the longest idle one only, as a proxy keeps them."""
    with serving(model) as d, dial(d) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        for how in ("closed", "reset"):
            streams = [dial(d) for _ in range(8)]
            for s in streams:
                s.sendall(post(FOREVER))
                assert s.recv(1000).startswith(b"HTTP/1.1 200")
                if how == "reset":
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for s in streams:
                s.close()
            eventually(lambda: counter(d, "vramd_http_connections") <= 2, 20)  # well before idle_timeout


def test_whoever_closes_half_a_socket_in_the_queue_leaves_it():
    with serving(MODEL, "--max-num-seqs", "1", "--max-model-len", "4096") as d:
        with dial(d) as running, dial(d) as waiting, dial(d) as whole:
            running.sendall(post({**FOREVER, "max_tokens": 4000}))  # takes its time with this model
            running.recv(100)
            for s, more in ((waiting, {}), (whole, {"stream": False})):
                s.sendall(post({**FOREVER, **more}))
            eventually(lambda: counter(d, "vramd_requests_waiting") == 2)
            for s in (waiting, whole):
                s.shutdown(socket.SHUT_WR)
            eventually(lambda: counter(d, "vramd_requests_waiting") == 0)
            for s in (waiting, whole):
                assert b"[DONE]" not in until_closed(s)


def test_the_log_is_of_whole_lines_and_utf_8(server):
    for path in ("/h\xe4", "/%0d%0a2026-01-01T00:00:00.000Z error forged", "/%1b[31m", "/" + "\u00e4" * 60):
        with dial(server) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
            until_closed(s)
    lines = open(server.log.name, "rb").read().decode().splitlines()  # any other bytes would be an error
    assert all(re.match(r"2\d{3}-\S+Z (info|warn|error) ", x) for x in lines) and not any("error forged" in x[:40] for x in lines)


def test_a_path_forges_no_field_of_the_log(server):
    assert server.http.get("/x%20200%20total_ms=0.1%20key=alice", headers={"X-Request-Id": "forged"}).status_code == 404
    line = server.wait_log("info GET .*id=forged")[0]
    assert "/x%20200%20total_ms%3D0.1%20key%3Dalice 404 total_ms=" in line and line.count("key=") == 0


def test_bodies_of_every_size_around_a_small_pool_are_answered_or_refused(model):
    """Memory ends in parsing, tokenising, choices, answers; each is refused, and nothing is kept."""
    rng, seen = random.Random(7), set()
    words = ["a ", "x", "\u20ac", '"\\\n', " "]
    with serving(model, "--request-memory", "1MiB", "--max-body", "1MiB", "--max-waiting", "8") as d:
        used = d.memory()["requests"]["used"]
        for i in range(200):
            n = int(10 ** rng.uniform(0, 5.8))
            text = rng.choice(words) * n
            path, body = rng.choice([
                ("/v1/completions", {"prompt": text, "max_tokens": 2}),
                ("/v1/completions", {"prompt": [text[: n // 4 + 1]] * rng.randint(1, 6), "n": 2, "max_tokens": 2, "stream": True}),
                ("/v1/completions", {"prompt": [1] * (n // 4 + 1), "echo": True, "logprobs": 20, "max_tokens": 2}),
                ("/v1/completions", {"prompt": "a", "max_tokens": 1, "junk": {str(k): "x" * 40 for k in range(n // 60)}}),
                ("/tokenize", {"prompt": text, "return_token_strs": True}),
                ("/detokenize", {"tokens": [1] * (n // 4 + 1)})])
            seen.add(d.http.post(path, json=body).status_code)
        assert {200, 400, 413} <= seen <= {200, 400, 413, 429, 503}, seen
        eventually(lambda: d.memory()["requests"]["used"] == used, 20)


# ---- crowds ----

def measured(d):
    """What the kernel says is a second old at most, from the request before: asks twice."""
    d.memory()
    time.sleep(1.2)
    d.memory()
    time.sleep(0.2)
    return d.memory()


def pool_used(d):
    return d.memory()["requests"]["used"]


@contextlib.contextmanager
def serving_on_a_unix_socket(model, path, *options, **more):
    """Its buffers are small. Yields the daemon, with a client, and a function that connects."""
    d = Daemon("--model", model, "--threads", "1", "--host", f"unix:{path}", *options, wait=False, **more)
    d.http = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://vramd", timeout=120)

    def connect():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(str(path))
        return s

    def ready():
        assert d.process.poll() is None, d.text()
        with contextlib.suppress(httpx.TransportError):
            return d.http.get("/ready").status_code == 200

    try:
        eventually(ready)
        yield d, connect
    finally:
        d.process.terminate()
        assert d.process.wait(60) == 0


@pytest.mark.parametrize("wide", [{"logprobs": 20}, {"logprobs": 20, "n": 2}, {}], ids=["logprobs", "choices", "plain"])
def test_streams_that_nobody_reads_keep_to_their_share_and_others_lose_nothing(tmp_path, wide):
    """Each waits after what was set aside for it; a client that reads gets its stream to the end, and the memory of
    large requests is still theirs."""
    path, n, choices = str(tmp_path / "long.gguf"), 16, wide.get("n", 1)
    write(path, "Q8_0", context=16384)
    with serving_on_a_unix_socket(path, tmp_path / "socket", "--max-num-seqs", "33", "--max-model-len", "16384",
                                  "--kv-cache-tokens", "300000") as (d, connect):
        def used():
            return d.memory()["requests"]["used"]

        def lengths():
            return [s["tokens"] for s in d.memory()["sequences"]]

        def all_wait():
            before = lengths()
            time.sleep(0.5)
            return len(before) == n * choices and min(before) > 20 and before == lengths()

        before, streams = used(), [connect() for _ in range(n)]
        for s in streams:
            s.sendall(post({**FOREVER, "max_tokens": 15000, **wide}))
        got = d.events("/v1/completions", {**FOREVER, "max_tokens": 400})
        assert got[-1]["choices"][0]["finish_reason"] == "length" and len(got) > 350
        eventually(all_wait, 120)
        assert used() - before <= n * choices * (64 << 10)  # as planned for each that runs
        assert d.complete("a", max_tokens=1, metadata={"junk": "x" * 400_000}).status_code == 200
        assert d.complete("a", max_tokens=4).status_code == 200
        streams[0].settimeout(60)  # and the one that reads at last goes on
        for _ in range(2000):
            assert streams[0].recv(4096)
        for s in streams:
            s.close()
        eventually(lambda: not lengths())
        assert used() == before


def test_a_crowd_of_idle_streams_is_held_as_planned_and_let_go(model):
    """Four run until their window is full, the others wait in the queue; nobody reads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 200:
        pytest.skip(f"{hard} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with serving(model, "--max-connections", str(IDLE + 100), "--max-waiting", str(IDLE), "--max-model-len", "512",
                 "--stream-credits", "8", "--heartbeat", "1", "--no-log-requests") as d:
        ready = d.memory()
        streams = []
        for i in range(IDLE):
            streams.append(socket.socket())
            if i < 4:  # these run: a small window, and much to say
                streams[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            streams[-1].connect(("127.0.0.1", d.port))
            streams[-1].sendall(post({**FOREVER, "logprobs": 20} if i < 4 else FOREVER))
        eventually(lambda: counter(d, "vramd_http_connections") >= IDLE)
        eventually(lambda: counter(d, "vramd_requests_waiting") > 0.8 * IDLE)
        assert counter(d, "vramd_http_connections") >= IDLE and d.http.get("/ready").status_code == 200
        held = measured(d)
        assert held["ledger_bytes"] <= held["budget_bytes"]
        assert SANITIZED or held["unaccounted_bytes"] <= (4 << 20) + held["ledger_bytes"] * 0.002, held
        for s in streams[::2]:
            s.close()
        eventually(lambda: counter(d, "vramd_requests_waiting") <= IDLE // 2)
        for s in streams[1::2]:
            s.close()
        eventually(lambda: counter(d, "vramd_http_connections") <= 2)
        d.wait_free()
        after = measured(d)
        assert SANITIZED or after["unaccounted_bytes"] <= (4 << 20) + after["ledger_bytes"] * 0.002, after
        assert after["requests"]["used"] <= ready["requests"]["used"] + 65536
        assert d.complete("a", max_tokens=4).status_code == 200


# ---- surroundings ----

def test_without_descriptors_it_serves_who_is_there_and_later_the_others(model):
    with serving(model, "--max-connections", "200") as d:
        assert d.complete("a", max_tokens=1).status_code == 200  # d.http keeps this connection
        used = len(os.listdir(f"/proc/{d.process.pid}/fd"))
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (used + 8, 20000))
        crowd = [dial(d) for _ in range(40)]
        for s in crowd:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert crowd[0].recv(1000).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            assert d.complete("a", max_tokens=1).status_code == 200
            assert d.http.get("/metrics").status_code == 200
        crowd[0].close()
        for s in crowd[1:]:  # as the first leave, the others are let in
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            s.close()
        d.http.close()
        d.http = httpx.Client(base_url=d.url, timeout=60)
        assert d.complete("a", max_tokens=1).status_code == 200


def change(path, name, change):
    """Writes to one tensor of a GGUF file."""
    reader = gguf.GGUFReader(path, "r+")
    change(next(t for t in reader.tensors if t.name == name).data)
    reader.data.flush()


@pytest.mark.parametrize("type_name, name", [("Q8_0", "blk.1.ffn_up.weight"), ("F16", "output.weight"), ("Q8_0", "blk.0.attn_norm.weight")])
def test_a_model_with_a_number_that_is_none_is_not_served(tmp_path, type_name, name):
    path = str(tmp_path / "nan.gguf")
    write(path, type_name)
    change(path, name, lambda data: data.view(np.uint16).reshape(-1).__setitem__(slice(0, 2), 0x7fff))
    p = subprocess.run([BINARY, "serve", "--model", path, "--port", "0", "--threads", "1"], capture_output=True, text=True, timeout=60)
    assert p.returncode != 0 and f"{name} has a number that is not finite" in p.stderr and "READY" not in p.stderr, p.stderr


def test_logits_that_are_no_numbers_end_their_request_and_are_counted(tmp_path):
    """Finite weights may still overflow: 500 with the reason, not text of token 0."""
    path = str(tmp_path / "inf.gguf")
    write(path, "Q8_0")
    change(path, "output_norm.weight", lambda data: data.__setitem__(slice(None), 3e38))
    with serving(path) as d:
        r = d.complete("a", max_tokens=4)
        assert r.status_code == 500 and "logits are not finite" in r.json()["error"]["message"], r.text
        assert "logits are not finite" in d.http.post("/v1/completions", json={"prompt": "a", "stream": True}).text
        assert counter(d, "vramd_logits_not_finite_total") == 2
        assert d.http.get("/ready").status_code == 200


def redirected(how):
    return ("sh", "-c", f'exec "$@" {how}', "sh")


@pytest.mark.parametrize("how", ["2>/dev/full", "2>&-", ">&- 2>/dev/full", ">&- 2>&- <&-", "full disk", "file limit"])
def test_logs_that_nobody_takes_are_dropped_and_counted_and_serving_goes_on(model, tmp_path, how):
    under, room = redirected(how), tmp_path / "log"
    if how == "full disk":
        room.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", room], capture_output=True).returncode:
            pytest.skip("no tmpfs can be mounted here")
        under = redirected(f"2>{room}/log")
    elif how == "file limit":
        under = ("sh", "-c", f'ulimit -f 1; exec "$@" 2>{room}', "sh")
    path = tmp_path / "socket"
    d = Daemon("--model", model, "--threads", "1", "--host", f"unix:{path}", wait=False, under=under)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://vramd", timeout=60) as http:
            def ready():
                assert d.process.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    return http.get("/ready").status_code == 200

            eventually(ready)
            for _ in range(100):
                r = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
                assert r.status_code == 200 and r.json()["usage"]["prompt_tokens"] == 1
            (row,) = re.findall(r"^vramd_log_lines_dropped_total\{.*\} (\d+)$", http.get("/metrics").text, re.M)
            # /dev/null takes all, where there was nothing
            assert int(row) == 0 if "2>&-" in how else int(row) > 20
    finally:
        d.process.terminate()
        code = d.process.wait(60)
        if how == "full disk":
            subprocess.run(["umount", room], check=True)
    assert code == 0
