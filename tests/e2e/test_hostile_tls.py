"""The hostile clients of test_hostile.py behind TLS: bytes one at a time, halves of sockets, nobody who reads, no
descriptors, many requests at once. Others are served meanwhile, and afterwards nothing is held."""

import contextlib
import ctypes
import hmac
import os
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import SANITIZED, Daemon
from test_hostile import BODY, FOREVER, HEAD, LENGTH, NEXT, eventually, measured, model, post, until_closed  # noqa: F401
from test_load import counter
from test_tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def serve(authority, model):  # noqa: F811
    """Starts a daemon, which in the end must hold nothing."""
    cert, key = authority.issue("hostile", 9)

    @contextlib.contextmanager
    def serving(*options):
        d = Daemon("--model", model, "--threads", "1", "--max-num-seqs", "4", "--tls-cert", str(cert), "--tls-key", str(key),
                   *options, verify=authority.context)
        try:
            yield d
            eventually(lambda: counter(d, "vramd_http_connections") <= 2)
            d.wait_free()
            assert d.memory()["sequences"] == []
        finally:
            d.stop()
    return serving


def hello(context):
    """The first message of a handshake."""
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def gone(s):
    """Closed, after whatever."""
    try:
        until_closed(s)
    except ssl.SSLError:
        pass


def has_ended(s, byte):
    """Sends a byte; whether the server has closed the connection."""
    try:
        s.send(byte)
        return s.recv(4096) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except (ConnectionError, ssl.SSLError):
        return True


def test_bytes_one_at_a_time_lose_their_connection(serve, authority):
    """In the handshake, and in records of one byte each: head, body, chunks."""
    kinds = ["GET /health HTTP/1.1\r\nX-A: " + "y" * 4000, HEAD + "Content-Length: 4000\r\n\r\n" + "y" * 4000,
             HEAD + "Transfer-Encoding: chunked\r\n\r\n" + "1\r\ny\r\n" * 800]
    # A thread of their own: with OpenSSL 3.5 an error stays behind for the next session of the same thread.
    with serve("--header-timeout", "1", "--body-timeout", "1", "--max-connections", "64") as d, ThreadPoolExecutor(1) as theirs:
        raw = [(socket.create_connection(("127.0.0.1", d.port)), hello(authority.context)) for _ in range(8)]
        slow = raw + [(authority.connect(d.port), text.encode()) for text in kinds for _ in range(4)]
        for s, _ in slow:
            s.setblocking(False)
        sent = 0
        while slow:
            assert d.http.get("/health").status_code == 200
            for s, text in list(slow):
                if theirs.submit(has_ended, s, text[sent:sent + 1]).result():
                    s.close()
                    slow.remove((s, text))
            sent += 1
            assert sent < 400  # none comes to its end
            time.sleep(0.05)


def test_whoever_closes_half_a_socket_in_a_handshake_or_later_frees_it(serve, authority):
    first = hello(authority.context)
    with serve("--header-timeout", "1", "--body-timeout", "1") as d:
        for cut in (0, 1, 5, 6, 100, len(first)):
            with socket.create_connection(("127.0.0.1", d.port), timeout=60) as s:
                s.sendall(first[:cut])
                s.shutdown(socket.SHUT_WR)
                gone(s)
        whole = post(FOREVER)
        for cut in (0, 10, whole.index(b"\r\n\r\n") + 4, len(whole) - 1, len(whole)):
            s = authority.connect(d.port)
            s.sendall(whole[:cut])
            if cut == len(whole):
                assert s.recv(1000).startswith(b"HTTP/1.1 200")
            s.shutdown(socket.SHUT_WR)  # of the socket below: no goodbye of TLS
            gone(s)
            s.close()
        garbage = [b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x15\x03\x03\x00\x02\x02\x28", b"\x80" * 3000, first + first]
        for text in garbage:
            with socket.create_connection(("127.0.0.1", d.port), timeout=60) as s:
                with contextlib.suppress(ConnectionError):
                    s.sendall(text)
                s.settimeout(60)
                gone(s)


def test_whoever_never_reads_is_held_as_planned_and_let_go(serve, authority):
    """Streams with much to say until their window is full, and those that wait behind them."""
    with serve("--max-connections", "200", "--max-waiting", "200", "--stream-credits", "8", "--no-log-requests") as d:
        streams = []
        for i in range(100):
            streams.append(authority.connect(d.port, receive_buffer=4096 if i < 4 else None))
            streams[-1].sendall(post({**FOREVER, "logprobs": 20} if i < 4 else FOREVER))
        eventually(lambda: counter(d, "vramd_http_connections") >= 100)
        held = measured(d)
        assert held["ledger_bytes"] <= held["budget_bytes"]
        assert SANITIZED or held["unaccounted_bytes"] <= (4 << 20) + held["ledger_bytes"] * 0.002, held
        assert d.http.get("/ready").status_code == 200
        for s in streams:
            s.close()


class Records:
    """A TLS 1.3 connection whose records, once the handshake is over, are made by hand: any type, any content."""

    def __init__(self, port, authority, folder):
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(folder / "keys.log")
        open(context.keylog_filename, "w").close()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.socket.sendall(outgoing.read())
                incoming.write(self.socket.recv(65536))
        self.socket.sendall(outgoing.read())
        name, _, bits = tls.cipher()
        assert name == "TLS_AES_256_GCM_SHA384" and bits == 256
        with open(context.keylog_filename) as f:
            secret = bytes.fromhex(next(line for line in f if line.startswith("CLIENT_TRAFFIC_SECRET_0")).split()[2])
        self.key, self.iv, self.sent = expand(secret, b"key", 32), expand(secret, b"iv", 12), 0

    def send(self, kind, text):
        plain = text + bytes([kind])
        head = b"\x17\x03\x03" + struct.pack(">H", len(plain) + 16)
        nonce = (int.from_bytes(self.iv, "big") ^ self.sent).to_bytes(12, "big")
        self.sent += 1
        self.socket.sendall(head + seal(self.key, nonce, head, plain))


def expand(secret, label, n):
    """HKDF-Expand-Label of RFC 8446, section 7.1, for one block of SHA-384."""
    info = struct.pack(">H", n) + bytes([6 + len(label)]) + b"tls13 " + label + b"\0" + b"\1"
    return hmac.new(secret, info, "sha384").digest()[:n]


def seal(key, nonce, head, plain):
    """AES-256-GCM by GnuTLS."""
    class Datum(ctypes.Structure):
        _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_uint)]
    lib, handle = ctypes.CDLL("libgnutls.so.30"), ctypes.c_void_p()
    lib.gnutls_cipher_get_id.argtypes = [ctypes.c_char_p]
    kind = lib.gnutls_cipher_get_id(b"AES-256-GCM")
    assert lib.gnutls_aead_cipher_init(ctypes.byref(handle), kind, ctypes.byref(Datum(key, len(key)))) == 0
    out, n = ctypes.create_string_buffer(len(plain) + 16), ctypes.c_size_t(len(plain) + 16)
    size = ctypes.c_size_t
    rc = lib.gnutls_aead_cipher_encrypt(handle, nonce, size(12), head, size(len(head)), size(16), plain, size(len(plain)),
                                        out, ctypes.byref(n))
    lib.gnutls_aead_cipher_deinit(handle)
    assert rc == 0
    return out.raw[:n.value]


HANDSHAKE, DATA = 22, 23


def first_bytes(n):
    """The beginning of a ClientHello that announces 131,000 bytes, in plain records."""
    text = b"\x01" + (131000).to_bytes(3, "big") + b"\x03\x03" + bytes(n)
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(p)) + p
                    for p in (text[i:i + 16000] for i in range(0, n, 16000)))


def within_the_plan(d, crowd):
    """While the crowd is there."""
    time.sleep(1)
    held = measured(d)
    assert held["ledger_bytes"] <= held["budget_bytes"]
    assert SANITIZED or held["unaccounted_bytes"] <= (4 << 20) + held["ledger_bytes"] * 0.002, held
    for s in crowd:
        s.close()


@pytest.mark.parametrize("n", [130000, 6000])
def test_a_long_first_message_is_held_as_planned(serve, n):
    """Without a key and without a request: each connection may take what is set aside for it, and no more."""
    with serve("--max-connections", "450", "--no-log-requests") as d:
        d.complete("a", max_tokens=1)
        crowd = []
        for _ in range(400):
            s = socket.create_connection(("127.0.0.1", d.port), timeout=60)
            with contextlib.suppress(ConnectionError):
                s.sendall(first_bytes(n) + b"\x16\x03\x01\x40\x00" + bytes(16000))  # and a record without its end
            crowd.append(s)
        within_the_plan(d, crowd)


@pytest.mark.parametrize("n, between", [(130000, None), (130000, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), (7000, None)])
def test_a_long_message_after_the_handshake_is_held_as_planned(serve, authority, tmp_path, n, between):
    """TLS 1.3 has handshake messages there too. Requests between the pieces change nothing of it."""
    with serve("--max-connections", "450", "--no-log-requests", "--header-timeout", "60") as d:
        d.complete("a", max_tokens=1)
        crowd = []
        for _ in range(250):
            c = Records(d.port, authority, tmp_path)
            with contextlib.suppress(ConnectionError):
                for at in range(0, n, 16000):
                    c.send(HANDSHAKE, (b"\x18" + (131000).to_bytes(3, "big") if at == 0 else b"") + bytes(min(n, 16000)))
                    if between:
                        c.send(DATA, between)
                c.socket.sendall(b"\x17\x03\x03\x40\x00" + bytes(16000))  # and a record without its end
            crowd.append(c.socket)
        within_the_plan(d, crowd)


def test_requests_in_one_piece_are_answered_one_by_one(serve, authority):
    one = f"GET /health HTTP/1.1\r\nHost: x\r\n\r\n{HEAD}{LENGTH}\r\n\r\n{BODY}".encode()
    one += post({"prompt": "a", "max_tokens": 3, "ignore_eos": True, "stream": True})
    with serve() as d, authority.connect(d.port) as s:
        s.sendall(one * 20 + NEXT.replace("Host", "Connection: close\r\nHost").encode())
        got = until_closed(s)
    assert got.count(b"HTTP/1.1 200 ") == 60 and got.count(b"HTTP/1.1 404 ") == 1 and got.count(b"data: [DONE]") == 20


def test_without_descriptors_it_serves_who_is_there_and_later_the_others(serve, authority):
    with serve("--max-connections", "200") as d:
        assert d.complete("a", max_tokens=1).status_code == 200  # d.http keeps this connection
        used = len(os.listdir(f"/proc/{d.process.pid}/fd"))
        resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (used + 8, 20000))
        crowd = [socket.create_connection(("127.0.0.1", d.port), timeout=60) for _ in range(40)]
        for s in crowd:
            s.sendall(hello(authority.context))
        assert crowd[0].recv(5)[:3] == b"\x16\x03\x03"
        for _ in range(20):
            assert d.complete("a", max_tokens=1).status_code == 200
        crowd[0].close()
        for s in crowd[1:]:  # as the first leave, the others are let in
            assert s.recv(5)[:3] == b"\x16\x03\x03"
            s.close()
        eventually(lambda: counter(d, "vramd_http_connections") <= 2)
        assert authority.serial(d.port) == 9


def spoken(d, lines, *options, pause=0.002):
    """What `openssl s_client` gets; a line that begins with K updates the keys of both sides, one with R renegotiates."""
    p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{d.port}", *options],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(0.5)  # the handshake
        for line in lines:
            p.stdin.write(line)
            p.stdin.flush()
            time.sleep(pause)  # a command is the first letter of what the client reads at once
        time.sleep(0.5)
    except BrokenPipeError:
        pass
    with contextlib.suppress(BrokenPipeError):
        p.stdin.close()
    try:
        return p.communicate(timeout=30)[0]
    except ValueError:  # stdin is closed
        return p.stdout.read()


GET = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
def test_keys_may_be_updated_and_not_without_end(serve):
    """GnuTLS ends a connection that updates its keys more than eight times a second."""
    with serve() as d:
        d.complete("a", max_tokens=1)
        before = measured(d)["unaccounted_bytes"]
        got = spoken(d, [b"K\n"] * 5 + [GET], "-tls1_3", pause=0.2)
        assert got.count(b"KEYUPDATE") >= 3 and b"HTTP/1.1 200" in got, got[-500:]
        assert b"HTTP/1.1 200" not in spoken(d, [b"K\n"] * 500 + [GET], "-tls1_3")
        assert SANITIZED or measured(d)["unaccounted_bytes"] - before < 1 << 20


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
def test_whoever_renegotiates_loses_the_connection_and_no_one_else(serve):
    with serve() as d:
        got = spoken(d, [b"R\n", GET], "-tls1_2", pause=0.2)
        assert b"RENEGOTIATING" in got and b"HTTP/1.1 200" not in got, got[-500:]
        assert d.complete("a", max_tokens=1)
