"""API keys: 401 and 429 as the openai client sees them, the file read again, tenants apart."""

import json
import os
import re
import signal
import subprocess
import threading

import httpx
import openai
import pytest

from harness import BINARY, MODEL, OPTIONS, Daemon, refused


def make(name, *limits):
    """A key by the subcommand: (key, line)."""
    p = subprocess.run([BINARY, "key", name, *limits], text=True, capture_output=True, timeout=10, check=True)
    return re.search(r"vk-[0-9a-f]{64}", p.stderr)[0], p.stdout


class Keyed:
    """A daemon with a file of keys."""

    def __init__(self, path, *lines, options=()):
        self.path = path
        self.write(*lines)
        self.d = Daemon(*OPTIONS, "--api-keys-file", str(path), *options)

    def write(self, *lines):
        self.path.touch(0o600)
        self.path.write_text("".join(lines))

    def client(self, key):
        return openai.OpenAI(base_url=self.d.url + "/v1", api_key=key, max_retries=0, timeout=120)

    def reload(self, want):
        before = len(self.d.text())
        self.d.process.send_signal(signal.SIGHUP)
        self.d.wait_log(r"(?s)\A.{%d}.*%s" % (before, want))


def say(client, prompt="The capital of France is", **more):
    return client.completions.create(model="", prompt=prompt, max_tokens=more.pop("max_tokens", 4),
                                     temperature=0, **more)


def test_the_account_of_memory_names_a_tenant_by_a_number(tmp_path):
    (a, line_a), (b, line_b) = make("alice"), make("bob")
    k = Keyed(tmp_path / "keys", line_a, line_b)
    names = {}
    try:
        for key in (a, b, a):
            head = {"Authorization": "Bearer " + key}
            with k.d.http.stream("POST", "/v1/completions", headers=head, json={
                    "prompt": "Once", "max_tokens": 900, "n": 8, "ignore_eos": True, "stream": True}) as r:
                next(r.iter_lines())
                text = k.d.http.get("/v1/memory", headers=head).text
                (tenant,) = {seq["tenant"] for seq in json.loads(text)["sequences"]}
                names.setdefault(key, set()).add(tenant)
                assert re.fullmatch("[0-9a-f]{16}", tenant) and tenant not in a + b
                assert "alice" not in text and "bob" not in text and "vk-" not in text
            while json.loads(k.d.http.get("/v1/memory", headers=head).text)["sequences"]:
                pass
    finally:
        k.d.stop()
    assert len(names[a]) == len(names[b]) == 1 and names[a] != names[b]


def test_a_tenant_that_floods_delays_no_other(tmp_path):
    """Of 8 places one is B's next: it waits for one of A's requests to end, not for a hundred; and the queue has
    places that A cannot take."""
    (a, line_a), (b, line_b) = make("a"), make("b")
    k = Keyed(tmp_path / "keys", line_a, line_b, options=("--max-num-seqs", "8", "--max-waiting", "96"))
    head = {"Authorization": "Bearer " + a}
    done, codes = threading.Event(), []

    def ask():
        r = k.d.http.post("/v1/completions", headers=head, json={"prompt": "Once", "max_tokens": 24, "ignore_eos": True, "priority": -5})
        codes.append(r.status_code)
        done.set()

    try:
        k.d.http = httpx.Client(base_url=k.d.url, timeout=120, limits=httpx.Limits(max_connections=200))
        crowd = [threading.Thread(target=ask) for _ in range(110)]
        for t in crowd:
            t.start()
        assert done.wait(60)
        assert say(k.client(b), max_tokens=1).usage.completion_tokens == 1
        served = codes.count(200)
        assert served <= 40, served  # else it is served after all of them
        for t in crowd:
            t.join()
        assert codes.count(429) > 0 and codes.count(200) >= 92 and len(codes) == 110
    finally:
        k.d.stop()


def test_a_key_is_asked_for_and_its_name_is_logged(tmp_path):
    (alice, line), (stranger, _) = make("alice"), make("alice")
    k = Keyed(tmp_path / "keys", line)
    try:
        assert "Paris" in say(k.client(alice)).choices[0].text
        with pytest.raises(openai.AuthenticationError) as e:
            say(k.client(stranger))
        assert e.value.body["type"] == "authentication_error" and e.value.status_code == 401
        assert k.d.http.get("/v1/models").status_code == 401
        assert k.d.http.get("/v1/models", headers={"X-Api-Key": alice}).status_code == 200
        assert {k.d.http.get(p).status_code for p in ("/health", "/ready", "/livez", "/metrics")} == {200}
        k.d.wait_log(r"/v1/completions 200 .* key=alice id=")
    finally:
        text = k.d.stop()
    assert alice not in text and stranger not in text and alice[3:] not in text


def test_limits_of_a_key_are_429_and_its_own(tmp_path):
    (a, line_a), (b, line_b) = make("a", "rate=3/min", "concurrency=1"), make("b", "tokens=100/min")
    ops, line_ops = make("ops")
    k = Keyed(tmp_path / "keys", line_a, line_b, line_ops)
    k.d.http.headers["X-Api-Key"] = ops
    try:
        a, b = k.client(a), k.client(b)
        with a.completions.create(model="", prompt="Count:", max_tokens=900, stream=True,
                                  extra_body={"ignore_eos": True}) as running:
            next(iter(running))
            with pytest.raises(openai.RateLimitError) as e:
                say(a)
            assert "at once" in e.value.message and int(e.value.response.headers["retry-after"]) >= 1
            say(b)
        k.d.wait_free()
        say(a), say(a)
        with pytest.raises(openai.RateLimitError) as e:
            say(a)
        assert "3 requests a minute" in e.value.message and 1 <= int(e.value.response.headers["retry-after"]) <= 20
        # 100 a minute: 9 are used; 5 + 80 fit, then 5 + 80 do not until most have come back.
        used = say(b, max_tokens=80, extra_body={"ignore_eos": True}).usage.total_tokens
        assert used == 85
        with pytest.raises(openai.RateLimitError) as e:
            say(b, max_tokens=80)
        assert "100 tokens a minute" in e.value.message
        assert 20 <= int(e.value.response.headers["retry-after"]) <= 48
        text = k.d.http.get("/metrics").text
        assert re.search(r'^vramd_key_limited_total\{.*key="a"\} 2$', text, re.M)
        assert re.search(r'^vramd_key_generated_tokens_total\{.*key="b"\} 84$', text, re.M)
    finally:
        k.d.stop()


def test_tenants_find_nothing_of_each_other_in_the_prefix_cache(tmp_path):
    (a, line_a), (b, line_b) = make("a"), make("b")
    k = Keyed(tmp_path / "keys", line_a, line_b)
    try:
        a, b = k.client(a), k.client(b)
        prompt = "The quick brown fox jumps over the lazy dog. " * 8

        def cached(client, **more):
            return say(client, prompt, extra_body=more).usage.prompt_tokens_details.cached_tokens

        assert cached(a) == 0 and cached(a) > 32
        assert cached(b) == 0 and cached(b) > 32
        assert cached(a, cache_salt="x") == 0 and cached(a, cache_salt="x") > 32 and cached(b, cache_salt="x") == 0
    finally:
        k.d.stop()


BAD = [("alice nonsense\n", 0o600, r"line 1: the name .alice. must be followed by a SHA-256"),
       ("", 0o600, "has no key"), ("x", 0o644, "everybody may read"), (None, 0, "cannot open")]


@pytest.mark.parametrize("text,mode,part", BAD)
def test_a_bad_file_is_refused_before_anything_is_loaded(tmp_path, text, mode, part):
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
        os.chmod(path, mode)
    p = refused("--model", MODEL, "--api-keys-file", str(path))
    assert p.returncode in (2, 3) and re.search(part, p.stderr) and str(path) in p.stderr, p.stderr


def test_keys_and_origins_are_read_again_while_a_stream_runs(tmp_path):
    (a, line_a), (b, line_b) = make("a"), make("b")
    conf = tmp_path / "vramd.conf"
    conf.write_text("[server]\ncors_origins = https://old.example\n")
    k = Keyed(tmp_path / "keys", line_a, options=["--config", str(conf)])
    preflight = {"Origin": "https://new.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization, content-type"}
    try:
        old, new = k.client(a), k.client(b)
        with pytest.raises(openai.AuthenticationError):
            say(new)
        r = k.d.http.options("/v1/completions", headers=preflight)
        assert r.status_code == 204 and "access-control-allow-origin" not in r.headers
        stream = old.completions.create(model="", prompt="Count:", max_tokens=300, stream=True,
                                        extra_body={"ignore_eos": True})
        parts = iter(stream)
        next(parts)
        k.write(line_b, "c nonsense\n")
        k.reload("line 2")
        say(old)
        k.write("# a has left\n", line_b)
        conf.write_text("[server]\ncors_origins = https://old.example https://new.example\n")
        k.reload("1 tenants in")
        say(new)
        with pytest.raises(openai.AuthenticationError):
            say(old)
        assert len(list(parts)) > 200  # what was let in goes on
        r = k.d.http.options("/v1/completions", headers=preflight)
        assert r.headers["access-control-allow-origin"] == "https://new.example"
        assert r.headers["access-control-allow-headers"] == "authorization, content-type"
        conf.write_text("[server]\ncors_origins = new.example\n")
        k.reload('"new.example" is no origin')
        assert "access-control-allow-origin" in k.d.http.options("/v1/completions", headers=preflight).headers
    finally:
        k.d.stop()
