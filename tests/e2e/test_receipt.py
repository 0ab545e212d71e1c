"""Receipts: what a request has taken (usage.memory), and why its prefix was not found, with the real model."""

import pytest

from harness import MODEL, Daemon, refused
from test_keys import Keyed, make
from test_kv_disk import wait_stored
from test_load import counter

TEXT = "You are a careful assistant who answers briefly, in plain words, and never repeats what was asked. " * 3
ASK = {"X-Vramd-Receipt": "1"}


@pytest.fixture(scope="module")
def d():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "8")
    yield d
    d.stop()


def chat(d, system, user, headers=ASK, **more):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    r = d.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 4, "temperature": 0, **more}, headers=headers)
    assert r.status_code == 200, r.text
    return r.json()


def prefix(d, *args, **more):
    return chat(d, *args, **more)["usage"]["memory"]["prefix"]


def test_every_api_says_what_it_took_and_only_where_asked(d):
    calls = [("/v1/completions", {"prompt": TEXT}, "max_tokens"), ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, "max_tokens"),
             ("/v1/responses", {"input": TEXT}, "max_output_tokens"), ("/v1/messages", {"messages": [{"role": "user", "content": TEXT}]}, "max_tokens")]
    block = d.memory()["kv"]["groups"][0]["block_bytes"]
    for path, body, limit in calls:
        body = {**body, limit: 20, "temperature": 0, "ignore_eos": True}
        assert "memory" not in d.http.post(path, json=body).json()["usage"]
        usage = d.http.post(path, json={**body, "receipt": True}).json()["usage"]
        m = usage["memory"]
        tokens = usage.get("prompt_tokens", usage.get("input_tokens"))
        # The last token that is drawn has no place.
        assert m["kv"]["peak_blocks"] == (tokens + 19 + 15) // 16 and m["kv"]["peak_bytes"] == m["kv"]["peak_blocks"] * block
        s = (m["prefill_ms"] + m["decode_ms"]) / 1000
        assert 0 < m["kv"]["byte_seconds"] <= 1.1 * m["kv"]["peak_bytes"] * s
        assert m["kv"]["byte_seconds"] >= 0.5 * (m["kv"]["peak_blocks"] - 2) * block * s
        assert m["steps"] == 20 and m["preemptions"] == m["recomputed_tokens"] == 0
        assert m["cached_tokens"] == {"memory": m["prefix"]["cached_tokens"], "host": 0, "disk": 0} and m["loaded"] == {"bytes": 0, "ms": 0}
        assert m["prefix"]["of"] == tokens and m["prefix"]["why"] is None and m["prefix"]["cached_tokens"] == (tokens - 1) // 16 * 16
        # In a stream it comes last, asked for or not.
        r = d.http.post(path, json={**body, "stream": True}, headers=ASK)
        assert r.text.count('"memory":{"kv"') == 1 and '"steps":20' in r.text


def fits(value, schema):
    """Whether all members of a value are in its schema."""
    return not isinstance(value, dict) or all(k in schema["properties"] and fits(v, schema["properties"][k]) for k, v in value.items())


def test_the_schema_has_every_member(d):
    schema = d.http.get("/openapi.json").json()["components"]["schemas"]["Receipt"]
    chat(d, "of a schema: 1 " + TEXT, "What?")
    m = chat(d, "of a schema: 2 " + TEXT, "What?")["usage"]["memory"]
    assert m["prefix"]["why"] == "tokens_differ" and fits(m, schema)
    assert set(schema["properties"]) == set(m) | {"stripped_lines", "energy_joules"} and set(schema["properties"]["prefix"]["properties"]) == set(m["prefix"])


def test_choices_are_summed_up(d):
    one = chat(d, TEXT, "How deep is it?", ignore_eos=True)["usage"]["memory"]
    three = chat(d, TEXT, "How deep is it?", ignore_eos=True, n=3, temperature=1)["usage"]["memory"]
    assert three["kv"]["peak_blocks"] == 3 * one["kv"]["peak_blocks"] and three["steps"] == 3 * one["steps"]
    assert three["cached_tokens"] == {"memory": three["prefix"]["cached_tokens"], "host": 0, "disk": 0}


def test_a_token_that_differs_is_named_with_its_place(d):
    first = chat(d, "cch=8ae40; " + TEXT, "What is the sea?")
    p = prefix(d, "cch=4e20a; " + TEXT, "What is the sea?")
    assert p["why"] == "tokens_differ" and p["nearest_request"] == first["id"] and p["cached_tokens"] == 0
    assert p["message"] == {"index": 0, "role": "system", "in": "content"}
    assert p["old"].startswith("8ae40; You are") and p["new"].startswith("4e20a; You are") and p["before"].endswith("cch=")
    assert p["at_token"] < 16 < p["of"]
    # The same again is a hit; another question differs in the next message.
    assert prefix(d, "cch=4e20a; " + TEXT, "What is the sea?")["why"] is None
    chat(d, "cch=4e20a; " + TEXT, "What is the sea? " + TEXT)
    p = prefix(d, "cch=4e20a; " + TEXT, "What is the moon? " + TEXT)
    assert p["why"] == "tokens_differ" and p["message"] == {"index": 1, "role": "user", "in": "content"}
    assert p["old"].startswith(" sea?") and p["new"].startswith(" moon?") and p["cached_tokens"] >= 48
    # A completion has no messages.
    text = d.http.post("/apply-template", json={"messages": [{"role": "system", "content": "cch=99; " + TEXT}]}).json()["prompt"]
    m = d.http.post("/v1/completions", json={"prompt": text, "max_tokens": 1, "receipt": True}).json()["usage"]["memory"]
    assert m["prefix"]["why"] == "tokens_differ" and "message" not in m["prefix"] and m["prefix"]["new"].startswith("99; You")


def test_a_client_that_nothing_is_known_of_sees_no_text(d):
    chat(d, "secret=8ae40; " + TEXT, "What is the sea?")
    p = prefix(d, "secret=4e20a; " + TEXT, "What is the sea?", headers={**ASK, "X-Forwarded-For": "192.0.2.1"})
    assert p["why"] == "tokens_differ" and set(p) == {"cached_tokens", "of", "why"}


def test_salts(d):
    assert prefix(d, "a salt: " + TEXT, "one")["why"] in ("tokens_differ", "first_seen")
    p = prefix(d, "a salt: " + TEXT, "one", cache_salt="x")
    assert p["why"] == "salt_differs" and p["cached_tokens"] == 0
    assert prefix(d, "a salt: " + TEXT, "one", cache_salt="x")["why"] is None
    # What another salt has is not shown.
    prefix(d, "only of y: " + TEXT, "two", cache_salt="y")
    assert prefix(d, "only of y: " + TEXT, "two", cache_salt="z")["why"] == "first_seen"
    assert "only of y" not in prefix(d, "only of y; " + TEXT, "two").get("old", "")


def test_scored_prompts(d):
    body = {"prompt": TEXT, "max_tokens": 1, "echo": True, "logprobs": 0, "receipt": True}
    d.http.post("/v1/completions", json=body)
    assert d.http.post("/v1/completions", json=body).json()["usage"]["memory"]["prefix"]["why"] == "scored_prompt"


def test_blocks_that_were_taken_for_others():
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--kv-cache-tokens", "320")
    first = chat(d, TEXT, "What is the sea?")
    assert prefix(d, TEXT, "What is the sea?")["why"] is None
    for i in range(3):
        chat(d, f"Other words {i}. " + TEXT + TEXT, "What?")
    p = prefix(d, TEXT, "What is the sea?")
    assert p["why"] == "evicted" and p["nearest_request"] != first["id"]  # the newest of its equals
    d.stop()
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--no-prefix-caching")
    chat(d, TEXT, "What is the sea?")
    assert prefix(d, TEXT, "What is the sea?")["why"] == "cache_off"
    d.stop()


def test_prefixes_from_disk_after_a_restart(tmp_path):
    options = ["--model", MODEL, "--max-model-len", "1024", "--max-num-seqs", "2", "--kv-disk", str(tmp_path / "kv")]
    long = "".join(f"Line {i} of the story of the old harbour. " for i in range(70))
    d = Daemon(*options)
    first = chat(d, long, "What is it about?", temperature=0)
    assert first["usage"]["memory"]["cached_tokens"] == {"memory": 0, "host": 0, "disk": 0}
    wait_stored(d, first["usage"]["prompt_tokens"] // 128)
    d.stop()
    d = Daemon(*options)
    again = chat(d, long, "What is it about?", temperature=0)
    m = again["usage"]["memory"]
    assert again["choices"][0]["message"] == first["choices"][0]["message"]
    assert m["cached_tokens"]["memory"] == 0 and m["cached_tokens"]["disk"] == m["prefix"]["cached_tokens"] >= 512
    chunk = m["kv"]["peak_bytes"] / m["kv"]["peak_blocks"] * 8
    assert m["loaded"]["bytes"] >= m["cached_tokens"]["disk"] / 128 * chunk and 0 < m["loaded"]["ms"] <= m["prefill_ms"] + 1
    assert counter(d, "vramd_kv_tier_loaded_bytes_total") == m["loaded"]["bytes"]
    # The texts that a prompt is compared with are not on disk: the rest of it is new.
    assert m["prefix"]["why"] in (None, "first_seen")
    d.stop()


def test_tenants_do_not_see_each_other(tmp_path):
    (one, line_one), (two, line_two) = make("one"), make("two")
    d = Keyed(tmp_path / "keys", line_one, line_two).d
    one, two = ({"Authorization": "Bearer " + key} for key in (one, two))
    chat(d, "A secret of the first: 1234. " + TEXT, "What?", headers={**ASK, **one})
    p = prefix(d, "A secret of the first: 9. " + TEXT, "What?", headers={**ASK, **two})
    assert p["why"] == "first_seen" and "1234" not in str(p) and "nearest_request" not in p
    p = prefix(d, "A secret of the first: 9. " + TEXT, "What?", headers={**ASK, **one, "X-Forwarded-For": "192.0.2.1"})
    assert p["why"] == "tokens_differ" and p["old"].startswith("1234")
    d.stop()


def test_a_line_about_the_client_costs_no_prefix(d):
    def ask(cch, **more):
        system = [{"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={cch}"}, {"type": "text", "text": "Of agents. " + TEXT}]
        r = d.http.post("/v1/messages", json={"system": system, "messages": [{"role": "user", "content": "What is it? " + TEXT}], "max_tokens": 3, **more}, headers=ASK)
        return r.json()["usage"]
    first, second = ask("8ae40"), ask("4e20a")
    m = second["memory"]
    assert m["stripped_lines"] == 1 and m["prefix"]["why"] is None and m["cached_tokens"]["memory"] == (second["input_tokens"] - 1) // 16 * 16
    assert first["input_tokens"] == second["input_tokens"]
    count = d.http.post("/v1/messages/count_tokens", json={"system": "x-anthropic-b: 1\nHi", "messages": [{"role": "user", "content": "a"}]}).json()
    assert count == d.http.post("/v1/messages/count_tokens", json={"system": "Hi", "messages": [{"role": "user", "content": "a"}]}).json()


def test_other_lines_may_be_stripped_or_none():
    def tokens(d, system):
        return d.http.post("/v1/messages/count_tokens", json={"system": system, "messages": [{"role": "user", "content": "a"}]}).json()["input_tokens"]
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--strip-prompt-lines", "^(Time|Now): ")
    assert tokens(d, "Time: 12:05\nHi") == tokens(d, "Hi") < tokens(d, "x-anthropic-b: 1\nHi")
    d.stop()
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--strip-prompt-lines", "")
    assert tokens(d, "x-anthropic-b: 1\nHi") > tokens(d, "Hi")
    d.stop()
    p = refused("--model", MODEL, "--strip-prompt-lines", "^(a")
    assert p.returncode != 0 and "strip_prompt_lines" in p.stderr and "does not compile at 3" in p.stderr
