"""What the page in a browser reads: files, the documentation, and the stream of the account, which must agree with GET /v1/memory."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import socket
import time

import httpx
import pytest
import tiny_model
from harness import BINARY, OPTIONS, ROOT, Daemon, refused

GUARD = {"content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
                                    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
         "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}


def guarded(r):
    assert {k: r.headers.get(k) for k in GUARD} == GUARD
    return r


class Stream:
    """Reads a stream in a thread, and applies what it says, as docs/web.md has it."""

    def __init__(self, url, key=None):
        self.doc, self.history, self.bye, self.n_whole, self.deltas, self.status = None, None, None, 0, [], None
        head = {"Authorization": "Bearer " + key} if key else {}
        self.begun, self.closed = threading.Event(), False
        self.thread = threading.Thread(target=self.run, args=(url + "/v1/memory/stream", head), daemon=True)
        self.thread.start()
        assert self.begun.wait(60)

    def run(self, url, head):
        try:
            with httpx.stream("GET", url, headers=head, timeout=60) as r:
                self.response, self.status = r, r.status_code
                if r.status_code != 200:
                    self.text = r.read().decode()
                    return
                kind = None
                for line in r.iter_lines():
                    if line.startswith("event: "):
                        kind = line[7:]
                    elif line.startswith("data: "):
                        self.take(kind, json.loads(line[6:]))
                    if self.closed:
                        return
        except httpx.HTTPError:
            assert self.closed
        finally:
            self.begun.set()

    def take(self, kind, data):
        if kind == "whole":
            self.n_whole += 1
            self.cells = {b["group"]: grid(b) for b in data["blocks"]}
            self.doc = data
            self.begun.set()
        elif kind == "history":
            self.history = data
        elif kind == "bye":
            self.bye = data
        else:
            self.deltas.append(data)
            self.apply(data)

    def apply(self, d):
        memory = self.doc["memory"]
        lists = {"classes": {c["class"]: c for c in memory["classes"]},
                 "groups": {str(i): g for i, g in enumerate(memory["kv"]["groups"])},
                 "models": {m["id"]: m for m in memory.get("models", [])}}
        merge(memory, d.get("memory", {}), lists)
        seqs = {s["id"]: s for s in memory["sequences"]}
        for s in d.get("sequences", {}).get("set", []):
            seqs.setdefault(s["id"], {}).update(s)
        for i in d.get("sequences", {}).get("gone", []):
            del seqs[i]
        memory["sequences"] = list(seqs.values())
        for b in d.get("blocks", []):
            if "n" in b:
                self.cells[b["group"]] = grid(b)
            else:
                draw(self.cells[b["group"]], b["cells"])
        for name in ("state", "latency", "keys"):
            if name in d:
                self.doc[name] = d[name]
        merge(self.doc["rates"], d.get("rates", {}), {})

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.doc, self.deltas[-3:], self.bye)
            time.sleep(0.05)

    def close(self):
        self.closed = True
        if self.status == 200:
            try:
                self.response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the server was faster
        self.thread.join(20)


def merge(to, patch, lists):
    for name, value in patch.items():
        if name in lists:
            for key, members in value.items():
                lists[name][key].update(members)
        elif isinstance(value, dict):
            if not isinstance(to.get(name), dict):
                to[name] = {}
            merge(to[name], value, lists)
        else:
            to[name] = value


def grid(b):
    cells = ["free"] * -(-b["n"] // b["stride"])
    draw(cells, b["cells"])
    return cells


def draw(cells, runs):
    for at, n, what in runs:
        assert 0 <= at and n > 0 and at + n <= len(cells)
        cells[at:at + n] = [what] * n


# ---- files ----

def test_the_page_and_its_files_need_nothing_else(daemon):
    if (ROOT / "web/index.html").exists():
        page = guarded(daemon.http.get("/"))
        assert page.headers["content-type"].startswith("text/html") and page.headers["content-encoding"] == "gzip"
        for name in set(re.findall(r'(?:src|href)="(/web/[^"]+)"', page.text)):
            r = guarded(daemon.http.get(name))
            assert r.status_code == 200 and not re.search(r'(?:src|href)=["\']?https?:', r.text)
    icon = daemon.http.get("/web/icon.svg", headers={"Accept-Encoding": "identity"})
    assert guarded(icon).text == (ROOT / "web/icon.svg").read_text() and "content-encoding" not in icon.headers
    packed = daemon.http.get("/web/icon.svg")
    assert packed.headers["content-encoding"] == "gzip" and packed.content == icon.content and packed.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != icon.headers["etag"]
    for tag in (packed.headers["etag"], icon.headers["etag"], "W/" + icon.headers["etag"], '"x", ' + icon.headers["etag"], "*"):
        r = daemon.http.get("/web/icon.svg", headers={"If-None-Match": tag})
        assert r.status_code == 304 and not r.content, tag
    assert daemon.http.get("/web/icon.svg", headers={"If-None-Match": '"0123456789abcdef"'}).status_code == 200
    head = daemon.http.head("/web/icon.svg", headers={"Accept-Encoding": "identity"})
    assert head.status_code == 200 and int(head.headers["content-length"]) == len(icon.content) and not head.content


def test_any_accept_encoding_gets_an_answer_that_it_can_read(daemon):
    plain = (ROOT / "web/icon.svg").read_bytes()
    for value in (b"", b"gzip;q=0", b"*;q=0, identity", b"br;q=1.0, *;q=0.5", b"gzip" * 500, b"," * 3000, b"gzip;q=" + b"9" * 2000, b"gzip;q=1e999",
                  b"\xff\xfe\xfd", b"gzip\t;\tq=0.5", b";q=1", b"gzip;q=0.5;q=0"):
        r = daemon.http.get("/web/icon.svg", headers=[(b"Accept-Encoding", value)])
        assert r.status_code == 200 and r.content == plain, value


def test_files_of_the_page_are_small_and_the_same_in_every_build(tmp_path):
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "web").iterdir())
    made = [subprocess.run(["tools/embed.sh", *files], cwd=ROOT, capture_output=True, check=True).stdout for _ in range(2)]
    assert made[0] == made[1]
    large = tmp_path / "large.txt"
    large.write_bytes(os.urandom(62 * 1024))
    p = subprocess.run(["tools/embed.sh", str(large)], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 1 and "more than 61440" in p.stderr


def test_without_the_page_nothing_of_it_is_there():
    d = Daemon(*OPTIONS, "--web-page=false")
    try:
        r = d.http.get("/")
        assert r.headers["content-type"].startswith("text/plain") and "POST /v1/completions" in r.text
        for path in ("/web/icon.svg", "/docs", "/docs/", "/v1/memory/stream"):
            assert d.http.get(path).status_code == 404, path
        assert "/v1/memory/stream" not in d.http.get("/openapi.json").json()["paths"]
    finally:
        d.stop()


# ---- documentation ----

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "secret.html").write_text("outside")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "index.html").write_text("<h1>here</h1>")
    (docs / "style.css").write_text("h1 { color: red }")
    (docs / "noending").write_text("x")
    (docs / "page.pdf").write_text("x")
    (docs / ".hidden.html").write_text("x")
    (docs / "link.html").symlink_to(folder / "secret.html")
    (docs / "folder.html").mkdir()
    os.mkfifo(docs / "fifo.html")
    with open(docs / "large.html", "wb") as f:
        f.truncate(5 << 20)
    d = Daemon(*OPTIONS, "--docs-dir", str(docs))
    yield d
    d.stop()


def test_the_documentation_is_served_from_its_folder_alone(site):
    r = guarded(site.http.get("/docs/"))
    assert r.text == "<h1>here</h1>" and r.headers["content-type"] == "text/html; charset=utf-8"
    assert site.http.get("/docs/index.html").text == r.text
    assert site.http.get("/docs/", headers={"If-None-Match": r.headers["etag"]}).status_code == 304
    assert site.http.get("/docs").status_code == 308 and site.http.get("/docs").headers["location"] == "/docs/"
    assert guarded(site.http.get("/docs/style.css")).headers["content-type"].startswith("text/css")
    assert site.http.head("/docs/").headers["content-length"] == str(len(r.text))
    assert site.http.post("/docs/", json={}).status_code == 405
    for path in ("/docs/none.html", "/docs/noending", "/docs/page.pdf", "/docs/.hidden.html", "/docs/link.html", "/docs/folder.html", "/docs/fifo.html",
                 "/docs/large.html", "/docs/../secret.html", "/docs/..%2fsecret.html", "/docs/%2e%2e/secret.html", "/docs/..", "/docs/%2e%2e%2fsecret.html",
                 "/docs//etc/passwd", "/docs/%2fetc%2fpasswd", "/docs/index.html/", "/docs/index.html%00.css", "/docs/" + "a" * 300 + ".html",
                 "/docs/\u00e4.html", "/docs/..\\secret.html"):
        sent = path.encode() if "\u00e4" not in path else path.encode("latin-1")
        r = raw(site, b"GET " + sent + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status = int(r.split(b" ")[1])
        assert status == (200 if path == "/docs/index.html/" else 400 if "%00" in path else 404), (path, r[:200])
        assert b"outside" not in r and b"root:" not in r


def raw(d, text):
    import socket
    with socket.create_connection(("127.0.0.1", d.port), timeout=20) as s:
        s.sendall(text)
        out = b""
        while more := s.recv(65536):
            out += more
    return out


def test_a_folder_that_is_not_there_is_refused():
    assert "docs_dir: /nonexistent: No such file" in refused("--model", os.environ["VRAMD_TEST_MODEL"], "--docs-dir", "/nonexistent").stderr


@pytest.mark.skipif(not shutil.which("pandoc"), reason="pandoc is not installed")
def test_pages_are_rendered_as_the_policy_wants_them(tmp_path):
    subprocess.run(["tools/docs.sh", str(tmp_path / "docs")], cwd=ROOT, check=True)
    pages = {p.name: p.read_text() for p in (tmp_path / "docs").glob("*.html")}
    assert {p.stem + ".html" for p in (ROOT / "docs").glob("*.md")} <= set(pages)
    for name, text in pages.items():
        ids = set(re.findall(r' id="([^"]+)"', text))
        assert text.startswith("<!DOCTYPE html>") and "<title> - " not in text, name
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            page, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            assert not page or (tmp_path / "docs" / page).exists(), (name, target)
            if anchor and page:
                assert f' id="{anchor}"' in pages[page], (name, target)
            assert page or not anchor or anchor in ids, (name, target)


# ---- the stream ----

def exact(memory):
    """By class: planned and allocated, of classes that are exact and not of loading."""
    return {c["class"]: (c["plan_bytes"], c["ledger_bytes"]) for c in memory["classes"] if c["kind"] == "exact" and c["class"] != "loading"}


def test_what_the_stream_says_is_the_account(daemon):
    daemon.wait_free()
    time.sleep(2.5)  # a point of the history every 2 s: the first may be of the time of loading
    before = daemon.memory()
    s = Stream(daemon.url)
    try:
        assert s.doc["state"] == "ready" and s.doc["version"] == daemon.http.get("/version").json()["version"]
        assert set(s.doc["memory"]) == set(before) and s.doc["may"] == {"resize": True, "keys": "none"}
        for plan, ledger in exact(s.doc["memory"]).values():
            assert plan == ledger
        s.wait(lambda: s.history)
        assert s.history["of"] == "host" and s.history["n"] == len(s.history["at"])
        kv = s.history["classes"]["kv"]  # one number where it was always the same
        assert (kv[-1] if isinstance(kv, list) else kv) == before["kv"]["blocks"] * before["kv"]["groups"][0]["block_bytes"]
        threads = [threading.Thread(target=daemon.complete, args=(f"Story {i}: once upon a time",), kwargs={"max_tokens": 400, "ignore_eos": True}) for i in range(6)]  # longer than half a second
        for t in threads:
            t.start()
        s.wait(lambda: any(d.get("sequences", {}).get("set") for d in s.deltas))
        for t in threads:
            t.join()
        s.wait(lambda: not s.doc["memory"]["sequences"] and s.doc["rates"]["running"] == 0)
        s.wait(lambda: s.doc["rates"]["generated_tokens_per_s"] == 0)

        def lasting(m):  # what the system says is asked at another time, connections come and go
            m = {k: v for k, v in m.items() if k not in ("process", "unaccounted_bytes", "requests", "ledger_bytes", "peak_bytes")}
            return {**m, "classes": [c for c in m["classes"] if c["class"] != "http"]}
        s.wait(lambda: lasting(s.doc["memory"]) == lasting(daemon.memory()))  # the stream's view is up to half a second old
        kv = daemon.memory()["kv"]["groups"][0]
        s.wait(lambda: s.cells[0].count("cached") == kv["cached"] > 0 and s.cells[0].count("free") == kv["free"])  # the picture a second
        assert s.doc["rates"]["counts"]["generated_tokens"] >= 2400 and s.doc["latency"][0]["itl_ms"]["n"] > 0
        assert s.n_whole == 1 and all(set(d) - {"t"} for d in s.deltas)
    finally:
        s.close()


def test_blocks_are_drawn_with_the_sequences_that_hold_them(daemon):
    s = Stream(daemon.url)
    try:
        t = threading.Thread(target=daemon.complete, args=("Once",), kwargs={"max_tokens": 400, "ignore_eos": True})
        t.start()
        s.wait(lambda: any(isinstance(c, int) for c in s.cells.get(0, [])))
        (seq,) = s.doc["memory"]["sequences"]
        assert {c for c in s.cells[0] if isinstance(c, int)} == {seq["id"]} and seq["state"] == "running"
        t.join()
    finally:
        s.close()


def test_places_are_bounded_and_the_head_of_a_stream_is_none(daemon):
    end = time.monotonic() + 60
    while not re.search(r"^vramd_http_connections\S* 1$", daemon.http.get("/metrics").text, re.M):
        assert time.monotonic() < end  # until the server has noticed that streams of other tests are closed
        time.sleep(0.05)
    streams = [Stream(daemon.url) for _ in range(8)]
    try:
        assert [s.status for s in streams] == [200] * 8
        r = daemon.http.get("/v1/memory/stream")
        assert r.status_code == 429 and r.headers["retry-after"] == "10" and r.json()["error"]["type"] == "rate_limit_error"
        assert daemon.http.head("/v1/memory/stream").status_code == 200
        plan = exact(daemon.memory())
        assert all(p == have for p, have in plan.values())
    finally:
        for s in streams:
            s.close()
    for s in streams:
        s.thread.join(20)


def test_a_stream_says_that_the_server_drains():
    d = Daemon(*OPTIONS, "--drain-grace=2")
    s = Stream(d.url)
    d.process.send_signal(signal.SIGTERM)
    s.wait(lambda: s.doc["state"] == "draining")
    s.thread.join(20)
    assert s.bye == {"why": "draining"}
    d.stop()


def test_with_keys_each_sees_what_it_may(tmp_path):
    made = {name: subprocess.run([BINARY, "key", name, *more], text=True, capture_output=True, check=True) for name, more in {"alice": ["concurrency=1"], "root": ["admin"]}.items()}
    key = {name: p.stderr.split()[-1] for name, p in made.items()}
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("".join(p.stdout for p in made.values()))
    d = Daemon(*OPTIONS, "--api-keys-file", str(path))
    try:
        assert d.http.get("/web/icon.svg").status_code == d.http.get("/").status_code == 200
        assert d.http.get("/v1/memory/stream").status_code == d.http.get("/v1/memory/stream", headers={"Authorization": "Bearer x"}).status_code == 401
        alice, root = Stream(d.url, key["alice"]), Stream(d.url, key["root"])
        assert alice.doc["may"] == {"resize": False, "keys": "own"} and [k["name"] for k in alice.doc["keys"]] == ["alice"]
        assert root.doc["may"] == {"resize": True, "keys": "all"} and {k["name"] for k in root.doc["keys"]} == {"alice", "root"}
        said = d.http.post("/v1/completions", headers={"Authorization": "Bearer " + key["alice"]}, json={"prompt": "a", "max_tokens": 3})
        assert said.status_code == 200  # the stream is not her one request
        alice.wait(lambda: alice.doc["keys"][0]["generated_tokens"] == 3)
        more = [Stream(d.url, key["alice"]) for _ in range(4)]
        assert [s.status for s in more] == [200] * 3 + [429] and "the key of alice has 4 streams" in more[3].text
        path.write_text(made["root"].stdout)  # alice's key is taken away
        d.process.send_signal(signal.SIGHUP)
        alice.thread.join(20)
        assert alice.bye == {"why": "keys"}
        assert Stream(d.url, key["alice"]).status == 401 and Stream(d.url, key["root"]).status == 200
    finally:
        d.stop()


def wakes(pid):
    """How often threads have slept so far, all of them together."""
    status = (open(f"/proc/{pid}/task/{t}/status").read() for t in os.listdir(f"/proc/{pid}/task"))
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", s, re.M)[1]) for s in status)


def test_a_stream_of_an_idle_server_wakes_it_a_few_times_a_second():
    """Two frames a second at most, and what an idle server wakes for without a stream. make bench B=metrics has the processor time."""
    d = Daemon(*OPTIONS)
    seconds = 6
    try:
        s = Stream(d.url)
        s.wait(lambda: s.history)
        time.sleep(2)
        before, frames, began = wakes(d.process.pid), len(s.deltas), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began  # more than that, where the machine is busy
        assert wakes(d.process.pid) - before <= 40 * took  # 7 a second; a poll would be hundreds
        assert len(s.deltas) - frames <= 2 * took + 1
        s.close()
    finally:
        d.stop()


def test_of_several_models_there_are_sums_and_their_states(tmp_path):
    text = "[model]\nmax_model_len = 256\n[scheduler]\nmax_num_seqs = 4\n[memory]\ngrammar_cache_bytes = 1MiB\nrequest_memory = 16MiB\n"
    for name, layers in (("a", 2), ("b", 3)):
        tiny_model.write(tmp_path / f"{name}.gguf", "F16", layers=layers)
        text += f"[model {name}]\nfile = {tmp_path / name}.gguf\n"
    (tmp_path / "vramd.conf").write_text(text)
    d = Daemon("--config", str(tmp_path / "vramd.conf"), model=None)
    s = Stream(d.url)
    try:
        assert s.doc["may"]["resize"] is False and s.doc["blocks"] == [] and [m["id"] for m in s.doc["memory"]["models"]] == ["a", "b"]
        r = d.http.post("/v1/completions", json={"model": "b", "prompt": "x", "max_tokens": 5, "ignore_eos": True})
        assert r.status_code == 200
        s.wait(lambda: s.doc["rates"]["counts"]["generated_tokens"] == 5 and s.doc["memory"]["models"][1]["state"] == "ready")
    finally:
        s.close()
        d.stop()
