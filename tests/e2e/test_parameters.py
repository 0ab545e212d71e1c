"""What each parameter of a request does, seen from outside."""

import json
import math

import pytest

PROMPT = "Once upon a time"


def chat(daemon, text, **more):
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 12, "temperature": 0, **more}
    r = daemon.http.post("/v1/chat/completions", json=body)
    assert r.status_code == 200, r.text
    return r.json()


def test_a_prompt_scored_is_what_it_was_when_generated(daemon):
    """Bitwise: a token has the same log-probability in a decode step and in a prefill."""
    ids = daemon.tokens(PROMPT)
    made = daemon.choice(ids, max_tokens=20, logprobs=0, ignore_eos=True)
    text = PROMPT + made["text"]
    assert daemon.tokens(text)[: len(ids)] == ids
    scored = daemon.choice(text, max_tokens=0, echo=True, logprobs=0)
    assert scored["text"] == text and scored["logprobs"]["token_logprobs"][0] is None
    assert scored["logprobs"]["tokens"][len(ids):] == made["logprobs"]["tokens"]
    assert scored["logprobs"]["token_logprobs"][len(ids):] == made["logprobs"]["token_logprobs"]


def test_echo_gives_the_prompt_back_and_offsets_follow_the_text(daemon):
    c = daemon.choice(PROMPT, echo=True, logprobs=2, max_tokens=6)
    lp = c["logprobs"]
    assert c["text"].startswith(PROMPT)
    assert "".join(lp["tokens"]) == c["text"]
    for token, offset in zip(lp["tokens"], lp["text_offset"]):
        assert c["text"][offset:].startswith(token)
    assert lp["token_logprobs"][0] is None and lp["top_logprobs"][0] is None
    assert all(len(t) in (2, 3) for t in lp["top_logprobs"][1:])


def test_logprobs_are_a_distribution(daemon):
    lp = daemon.choice("The sky is", logprobs=20, max_tokens=8, ignore_eos=True)["logprobs"]
    for chosen, top in zip(lp["token_logprobs"], lp["top_logprobs"]):
        mass = sum(math.exp(p) for p in top.values())
        assert 0.1 < mass <= 1 + 1e-4
        assert list(top.values()) == sorted(top.values(), reverse=True) and chosen == max(top.values())
    # They are of the model, not of the sampler: temperature changes the draw only.
    hot = daemon.choice("The sky is", logprobs=20, max_tokens=1, temperature=2, seed=1)["logprobs"]
    assert hot["top_logprobs"][0] == {k: v for k, v in hot["top_logprobs"][0].items()}
    best = max(lp["top_logprobs"][0], key=lp["top_logprobs"][0].get)
    assert hot["top_logprobs"][0][best] == lp["top_logprobs"][0][best]


def test_chat_logprobs_carry_bytes(daemon):
    c = chat(daemon, "Say something in Chinese: 你好", logprobs=True, top_logprobs=3)["choices"][0]
    content = c["logprobs"]["content"]
    assert b"".join(bytes(t["bytes"]) for t in content).decode(errors="replace") == c["message"]["content"]
    for t in content:
        assert len(t["top_logprobs"]) == 3 and t["logprob"] <= 0
        assert t["top_logprobs"][0]["logprob"] == t["logprob"]


def test_streams_carry_the_same_logprobs(daemon):
    whole = daemon.choice(PROMPT, logprobs=1, max_tokens=8)["logprobs"]
    parts = daemon.events("/v1/completions", {"prompt": PROMPT, "temperature": 0, "max_tokens": 8, "logprobs": 1})
    streamed = [p for d in parts if d["choices"][0].get("logprobs")
                for p in d["choices"][0]["logprobs"]["token_logprobs"]]
    assert streamed == whole["token_logprobs"]


def test_usage_comes_where_it_is_asked_for(daemon):
    body = {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, "ignore_eos": True}
    assert not any(d.get("usage") for d in daemon.events("/v1/completions", body))
    last = daemon.events("/v1/completions", {**body, "stream_options": {"include_usage": True}})
    assert last[-1]["choices"] == [] and last[-1]["usage"]["completion_tokens"] == 5
    assert not any(d.get("usage") for d in last[:-1])
    each = daemon.events("/v1/completions", {**body, "stream_options": {
        "include_usage": True, "continuous_usage_stats": True}})
    counts = [d["usage"]["completion_tokens"] for d in each]
    assert counts == sorted(counts) and counts[-1] == 5 and len(counts) > 2
    usage = daemon.complete(PROMPT).json()["usage"]
    assert usage["prompt_tokens"] == 4 and usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_n_choices_differ_by_seed_and_end_each(daemon):
    body = {"prompt": PROMPT, "n": 4, "temperature": 1.0, "seed": 3, "max_tokens": 10}
    whole = daemon.http.post("/v1/completions", json=body).json()
    texts = [c["text"] for c in whole["choices"]]
    assert [c["index"] for c in whole["choices"]] == [0, 1, 2, 3] and len(set(texts)) == 4
    streamed = {i: "" for i in range(4)}
    ends = []
    for d in daemon.events("/v1/completions", body):
        for c in d["choices"]:
            streamed[c["index"]] += c["text"]
            ends += [c["index"]] if c["finish_reason"] else []
    assert [streamed[i] for i in range(4)] == texts and sorted(ends) == [0, 1, 2, 3]


def test_token_ids_stop(daemon):
    made = daemon.choice(PROMPT, max_tokens=12, ignore_eos=True, logprobs=0)
    ids = daemon.tokens(PROMPT + made["text"])[len(daemon.tokens(PROMPT)):]
    at = 6
    while ids[at] in ids[:at]:
        at += 1
    c = daemon.choice(PROMPT, max_tokens=12, stop_token_ids=[ids[at]])
    assert c["finish_reason"] == "stop" and c["stop_reason"] == ids[at]
    assert c["text"] == "".join(made["logprobs"]["tokens"][:at])
    later = daemon.choice(PROMPT, max_tokens=12, stop_token_ids=[ids[at]], min_tokens=at + 2)
    assert later["text"].startswith(c["text"]) and len(later["text"]) > len(c["text"])


def test_stop_reason_names_the_string(daemon):
    text = daemon.say(PROMPT, max_tokens=40)
    words = text.split()
    r = daemon.choice(PROMPT, max_tokens=40, stop=["~never~", words[5], words[9]])
    assert r["stop_reason"] == words[5] and r["finish_reason"] == "stop"
    assert daemon.choice(PROMPT, max_tokens=3)["finish_reason"] == "length"


def test_a_long_stop_string_that_almost_matches_loses_nothing(daemon):
    text = daemon.say(PROMPT, max_tokens=30)
    near = text[5:25] + "~"
    parts = daemon.events("/v1/completions", {"prompt": PROMPT, "temperature": 0, "max_tokens": 30, "stop": near})
    assert "".join(d["choices"][0]["text"] for d in parts) == text


def test_penalties_make_repetition_rarer(daemon):
    def distinct(**more):
        return len(set(daemon.choice("la la la la la la", max_tokens=40, logprobs=0, ignore_eos=True,
                                     **more)["logprobs"]["tokens"]))
    plain = distinct()
    assert distinct(frequency_penalty=2.0) > plain
    assert distinct(presence_penalty=2.0) > plain
    assert distinct(repetition_penalty=1.5) > plain


def test_logit_bias_forces_a_token_by_id_and_by_text(daemon):
    (id_,) = daemon.tokens(" green")
    for key in (str(id_), " green"):
        assert daemon.say("The sky is", logit_bias={key: 100}, max_tokens=3, ignore_eos=True) == " green" * 3


def test_narrow_sampling_is_greedy(daemon):
    greedy = daemon.say(PROMPT, max_tokens=24)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert daemon.say(PROMPT, max_tokens=24, temperature=1.5, seed=9, **narrow) == greedy


def test_utf8_is_never_split_in_a_stream(daemon):
    body = {"prompt": "你好，世界！这是一个关于 🐉 和 🏯 的故事：从前", "max_tokens": 60, "temperature": 1.2, "seed": 11,
            "ignore_eos": True}
    whole = daemon.http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    r = daemon.http.post("/v1/completions", json={**body, "stream": True})
    parts = [json.loads(e[6:])["choices"][0]["text"] for e in r.content.decode("utf-8").split("\n\n")
             if e.startswith("data: {")]
    assert "".join(parts) == whole and any(ord(c) > 0x2000 for c in whole)


def test_messages_may_be_lists_of_parts(daemon):
    plain = chat(daemon, "Name a\ncolour.")["choices"][0]["message"]["content"]
    # A template that takes one text gets the parts as lines, as in vLLM.
    parts = [{"type": "text", "text": "Name a"}, {"type": "text", "text": "colour."}]
    assert chat(daemon, parts)["choices"][0]["message"]["content"] == plain


def test_null_is_unset_and_unknown_fields_are_accepted(daemon):
    nulls = dict.fromkeys(["top_p", "n", "stop", "seed", "logit_bias", "logprobs", "stream", "echo", "user"])
    assert daemon.say(PROMPT, **nulls, something_new={"a": [1]}) == daemon.say(PROMPT)


def test_defaults_are_16_tokens_and_for_chat_the_rest_of_the_context(daemon):
    r = daemon.http.post("/v1/completions", json={"prompt": PROMPT, "ignore_eos": True, "temperature": 0})
    assert r.json()["usage"]["completion_tokens"] == 16
    r = daemon.http.post("/v1/chat/completions", json={
        "messages": [{"role": "user", "content": "word " * 940}], "ignore_eos": True})
    assert r.json()["usage"]["total_tokens"] == 1024, r.text


@pytest.mark.parametrize("given", ["abc-123", None])
def test_requests_have_an_id(daemon, given):
    r = daemon.http.get("/health", headers={"X-Request-Id": given} if given else {})
    assert r.headers["x-request-id"] == given if given else len(r.headers["x-request-id"]) > 8


def test_streams_have_the_headers_that_proxies_need(daemon):
    r = daemon.http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 1, "stream": True})
    assert r.headers["content-type"].startswith("text/event-stream")
    assert r.headers["cache-control"] == "no-cache" and r.headers["x-accel-buffering"] == "no"


def test_models_say_what_they_are(daemon):
    m = daemon.http.get("/v1/models").json()["data"][0]
    assert m["object"] == "model" and m["owned_by"] and m["max_model_len"] == 1024
    assert m["meta"]["n_params"] == 134515008 and m["meta"]["n_ctx_train"] == 8192
    assert daemon.client.models.retrieve(m["id"]).id == m["id"]


def test_a_deadline_ends_a_request(daemon):
    r = daemon.complete("Count:", max_tokens=900, ignore_eos=True, timeout=0.2)
    if r.status_code == 200:
        assert r.json()["usage"]["completion_tokens"] < 900  # all of them take seconds
    else:
        assert r.status_code in (408, 503, 504), r.text
    daemon.wait_free()
