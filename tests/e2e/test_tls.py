"""HTTPS with an authority of the test's own: clients, crowds of streams, and a certificate that is replaced."""

import concurrent.futures
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import warnings

import httpx
import openai
import pytest

from harness import MODEL, OPTIONS, SANITIZED, Daemon, refused, vramd


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60)


EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    def __init__(self, folder):
        self.dir = folder
        self.cert, self.key = folder / "ca.pem", folder / "ca.key"
        openssl("req", "-x509", *EC, "-keyout", self.key, "-out", self.cert, "-days", 2, "-subj", "/CN=test authority",
                "-addext", "keyUsage=critical,keyCertSign")
        self.context = ssl.create_default_context(cafile=self.cert)

    def issue(self, name, serial, newkey=EC):
        """name.pem (with the authority's after it) and name.key."""
        cert, key, ask = (self.dir / f"{name}.{x}" for x in ("pem", "key", "csr"))
        ext = self.dir / "ext"
        ext.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("req", *newkey, "-keyout", key, "-out", ask, "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", ask, "-CA", self.cert, "-CAkey", self.key, "-days", 2, "-set_serial", serial,
                "-extfile", ext, "-out", cert)
        cert.write_text(cert.read_text() + self.cert.read_text())
        key.chmod(0o600)
        return cert, key

    def serve(self, cert, key, *options):
        return Daemon(*OPTIONS, "--tls-cert", str(cert), "--tls-key", str(key), *options, verify=self.context)

    def connect(self, port, context=None, receive_buffer=None):
        s = socket.socket()
        s.settimeout(20)
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.connect(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a request waits for the end of the handshake's ACK
        try:
            return (context or self.context).wrap_socket(s, server_hostname="localhost")
        except BaseException:
            s.close()
            raise

    def serial(self, port):
        with self.connect(port) as s:
            return int(s.getpeercert()["serialNumber"], 16)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def https(authority):
    d = authority.serve(*authority.issue("server", 0x1234))
    yield d
    d.wait_free()
    d.stop()


def test_the_openai_client_over_https(https, authority):
    model = https.client.models.list().data[0].id
    args = dict(model=model, prompt="The capital of France is", max_tokens=20, temperature=0)
    whole = https.client.completions.create(**args).choices[0].text
    assert "Paris" in whole
    assert "".join(p.choices[0].text for p in https.client.completions.create(**args, stream=True)) == whole
    assert authority.serial(https.port) == 0x1234
    https.wait_log("serial=1234 valid until 20")


def test_others_versions_and_plain_http_get_nothing(https, authority):
    with pytest.raises(ssl.SSLCertVerificationError):
        authority.connect(https.port, ssl.create_default_context())
    warnings.simplefilter("ignore", DeprecationWarning)
    for version, ok in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
        context = ssl.create_default_context(cafile=authority.cert)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        if ok:
            with authority.connect(https.port, context) as s:
                assert s.version() == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError):
                authority.connect(https.port, context)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{https.port}/health")
    assert https.http.get("/health").status_code == 200


def test_large_bodies_and_a_kept_connection(https):
    text = "word " * 100_000
    for _ in range(3):  # many TLS records each, on one connection
        r = https.http.post("/tokenize", json={"prompt": text})
        assert r.status_code == 200 and len(r.json()["tokens"]) > 100_000
    r = https.http.post("/tokenize", content=b" " * (5 << 20))
    assert r.status_code == 413
    for _ in range(50):
        assert https.http.get("/health").status_code == 200


def test_64_streams_at_once_lose_nothing(https):
    """Each is put to sleep and woken for each token; a third of the clients read late, some leave."""
    def body(i):
        return {"prompt": f"Number {i} is", "max_tokens": 24, "temperature": 0, "ignore_eos": True}

    def ask(i):
        with httpx.Client(base_url=https.url, verify=https.verify, timeout=120) as http:
            with http.stream("POST", "/v1/completions", json={**body(i), "stream": True}) as r:
                lines = r.iter_lines()
                got = [next(lines)]
                if i % 8 == 7:
                    return None
                if i % 3 == 0:
                    time.sleep(0.5)
                got += [x for x in lines if x]
        assert got[-1] == "data: [DONE]"
        return "".join(json.loads(x[6:])["choices"][0]["text"] for x in got if x.startswith("data: {"))

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(ask, range(64)))
    https.wait_free()
    for i in (0, 1, 2, 3, 30, 62):
        assert texts[i] == https.say(**body(i)), i
    assert [i for i, t in enumerate(texts) if not t] == [i for i in range(64) if i % 8 == 7]


def test_sessions_are_in_the_plan_and_the_kernel_agrees(https, authority):
    https.wait_free()
    held = [authority.connect(https.port) for _ in range(150)]
    try:
        for s in held:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        for _ in range(2):  # what the operating system says may be a scrape old
            m = https.memory()
            time.sleep(1.1)
        (http,) = [c for c in m["classes"] if c["class"] == "http"]
        assert http["ledger_bytes"] >= 150 * 51 * 1024 and http["ledger_bytes"] <= http["plan_bytes"]
        assert SANITIZED or m["unaccounted_bytes"] <= (4 << 20) + m["ledger_bytes"] // 500, m
    finally:
        for s in held:
            s.close()


def test_a_new_certificate_is_taken_at_sighup_and_nobody_is_cut_off(authority):
    cert, key = authority.issue("first", 0xAA01)
    second = authority.issue("second", 0xAA02, ["-newkey", "rsa:2048", "-nodes"])  # another kind of key, too
    d = authority.serve(cert, key)

    def reload(want):
        before = len(d.text())
        d.process.send_signal(signal.SIGHUP)
        d.wait_log(r"(?s)\A.{%d}.*%s" % (before, want))

    try:
        assert authority.serial(d.port) == 0xAA01
        stream = d.client.completions.create(model="", prompt="Count:", max_tokens=400, stream=True,
                                             extra_body={"ignore_eos": True})
        parts = iter(stream)
        next(parts)
        with authority.connect(d.port) as kept:
            cert.write_text(second[0].read_text())
            reload("is not the key of")  # half of the pair: the old one stays
            assert authority.serial(d.port) == 0xAA01
            key.write_text(second[1].read_text())
            reload("serial=aa02")
            assert authority.serial(d.port) == 0xAA02
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(4096).startswith(b"HTTP/1.1 200")
        rest = list(parts)  # fewer than tokens: some make no text of their own
        assert len(rest) > 300 and rest[-1].choices[0].finish_reason == "length"
        key.write_text("nothing")
        reload("no private key")
        assert authority.serial(d.port) == 0xAA02
        with concurrent.futures.ThreadPoolExecutor(8) as pool:  # handshakes while it is replaced
            key.write_text(second[1].read_text())
            serials = [pool.submit(authority.serial, d.port) for _ in range(60)]
            for _ in range(10):
                d.process.send_signal(signal.SIGHUP)
                time.sleep(0.02)
            assert {s.result() for s in serials} == {0xAA02}
    finally:
        d.stop()


def test_a_handshake_has_the_time_of_a_header(authority):
    d = authority.serve(*authority.issue("slow", 3), "--header-timeout", "1")
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the first bytes of one
    try:
        for data in (b"", hello):
            with socket.create_connection(("127.0.0.1", d.port), timeout=20) as s:
                s.sendall(data)
                assert s.recv(100) == b""
        with authority.connect(d.port) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
            try:
                assert s.recv(100) == b""
            except ssl.SSLEOFError:  # cut off, not closed politely
                pass
        assert d.http.get("/health").status_code == 200
    finally:
        d.stop()


def test_a_unix_socket_and_draining_work_with_tls(authority, tmp_path):
    path = tmp_path / "socket"
    cert, key = authority.issue("unix", 4)
    d = Daemon(*OPTIONS, "--tls-cert", str(cert), "--tls-key", str(key), "--host", f"unix:{path}", wait=False)
    try:
        d.wait_log(r"READY: curl --unix-socket \S+ https://")
        transport = httpx.HTTPTransport(uds=str(path), verify=authority.context)
        with httpx.Client(transport=transport, base_url="https://localhost", timeout=60) as http:
            lines = []
            with http.stream("POST", "/v1/completions", json={
                    "prompt": "Count:", "max_tokens": 60, "ignore_eos": True, "stream": True}) as r:
                for line in r.iter_lines():
                    if not lines:
                        d.process.send_signal(signal.SIGTERM)
                    lines.append(line)
            assert "data: [DONE]" in lines
    finally:
        d.stop()


def test_check_reads_what_serve_will_read_and_binds_nothing(https, authority, tmp_path):
    cert, key = authority.issue("check", 7)
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(vramd("key", "alice").stdout)
    options = ["--model", MODEL, *OPTIONS, f"--tls-cert={cert}", f"--tls-key={key}", f"--api-keys-file={keys}",
               "--cors-origins", "https://chat.example"]
    r = vramd("serve", "--check", "--port", str(https.port), *options)  # another listens there
    assert r.returncode == 0 and "serial=07" in r.stderr and f"api_keys_file = {keys}" in r.stdout, r
    path = tmp_path / "socket"
    assert vramd("serve", "--check", "--host", f"unix:{path}", *options).returncode == 0 and not path.exists()


def test_a_wrong_pair_is_refused_before_anything_is_loaded(authority, tmp_path):
    cert, key = authority.issue("good", 5)
    other = authority.issue("other", 6)
    loose = tmp_path / "loose.key"
    loose.write_text(key.read_text())
    os.chmod(loose, 0o644)
    empty = tmp_path / "empty.pem"
    empty.touch(0o600)
    for c, k, part in ((cert, other[1], "is not the key of"), (empty, key, "no certificate"), (cert, empty, "no private"),
                       (cert, loose, "everybody may read"), (tmp_path / "none", key, "cannot open"),
                       (cert, "", "tls_key is not set"), ("", key, "tls_cert is not set")):
        p = refused("--model", MODEL, f"--tls-cert={c}", f"--tls-key={k}")
        assert p.returncode in (2, 3) and part in p.stderr, (part, p.stderr)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_longest_chain_is_served_to_a_client_with_much_to_say(tmp_path, version):
    """Buffers of a handshake are bounded: a chain of eight, of 9 KB, and a ClientHello of 4 KB fit."""
    a = Authority(tmp_path)
    cert, key = a.issue("long", 7)
    big = tmp_path / "big.pem"
    openssl("req", "-x509", "-newkey", "rsa:4096", "-nodes", "-keyout", tmp_path / "big.key", "-out", big, "-days", 2,
            "-subj", "/CN=" + "b" * 60)
    cert.write_text(cert.read_text() + big.read_text() * 6)
    d = a.serve(cert, key)
    try:
        a.context.minimum_version = a.context.maximum_version = version
        a.context.set_alpn_protocols(["http/1.1"] + [c * 250 for c in "abcdefghijklmno"])
        with a.connect(d.port) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            assert s.version() == version.name.replace("_", ".")
    finally:
        d.stop()
