"""What clients of other servers ask for, by the openai package and by hand, with a real model."""

import json
import re
from collections import Counter

import openai
import pytest

from harness import OPTIONS, Daemon

PROMPT = "Once upon a time"
CJK = "龍 🐉 and 🏯: 从前有一座山"
TURNS = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "My favourite colour is"}]


def pairs(items):
    """A JSON object whose keys are distinct."""
    assert not [k for k, n in Counter(k for k, _ in items).items() if n > 1], items
    return dict(items)


def strict(r):
    assert r.status_code == 200, r.text
    return json.loads(r.text, object_pairs_hook=pairs)


def test_a_parameter_that_is_not_supported_costs_one_request(daemon):
    client = openai.OpenAI(base_url=daemon.url + "/v1", api_key="none")  # with its retries
    def refused():
        text = daemon.http.get("/metrics").text
        return int(next(x for x in text.splitlines() if 'vramd_http_responses_total' in x and '"4xx"' in x).split()[-1])
    before = refused()
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="", messages=TURNS[:1], extra_body={"use_beam_search": True})
    assert e.value.code == "unsupported_parameter" and e.value.param == "use_beam_search"
    assert refused() == before + 1


@pytest.mark.parametrize("echo", [False, True])
def test_the_chosen_token_is_found_under_its_own_name(daemon, echo):
    body = {"prompt": CJK, "logprobs": 5, "max_tokens": 16, "temperature": 1.3, "seed": 5, "ignore_eos": True}
    lp = strict(daemon.http.post("/v1/completions", json={**body, "echo": echo}))["choices"][0]["logprobs"]
    checked = 0
    for token, logprob, top in zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]):
        if top is None:
            assert logprob is None
            continue
        assert top[token] == logprob and len(top) in (5, 6)
        checked += token.startswith("bytes:")
    assert checked or not echo
    zero = daemon.choice(PROMPT, logprobs=0, max_tokens=4)["logprobs"]
    assert zero["top_logprobs"] == [{t: p} for t, p in zip(zero["tokens"], zero["token_logprobs"])]


def test_a_seed_of_minus_one_is_random(daemon):
    texts = {daemon.say(PROMPT, seed=-1, temperature=1, max_tokens=24) for _ in range(4)}
    assert len(texts) > 1


def test_prompt_logprobs_are_those_of_echo(daemon):
    ids = daemon.tokens(PROMPT)
    echoed = daemon.choice(PROMPT, echo=True, logprobs=3, max_tokens=0)["logprobs"]
    c = daemon.client.completions.create(model="", prompt=PROMPT, max_tokens=4, temperature=0, n=2,
                                         extra_body={"prompt_logprobs": 3}).choices
    for choice in c:
        first, *scores = choice.prompt_logprobs
        assert first is None and choice.logprobs is None
        assert [s[str(i)]["logprob"] for i, s in zip(ids[1:], scores)] == echoed["token_logprobs"][1:]
        assert [s[str(i)]["decoded_token"] for i, s in zip(ids[1:], scores)] == echoed["tokens"][1:]
        for s, top in zip(scores, echoed["top_logprobs"][1:]):
            assert sorted(x["logprob"] for x in s.values()) == sorted(top.values())
            assert {x["rank"] for x in s.values()} - {None} == {1, 2, 3}
    chat = daemon.client.chat.completions.create(model="", messages=TURNS[:1], max_tokens=1,
                                                 extra_body={"prompt_logprobs": 0})
    assert len(chat.prompt_logprobs) == chat.usage.prompt_tokens and chat.prompt_logprobs[0] is None
    assert daemon.say(PROMPT, prompt_logprobs=2) == daemon.say(PROMPT)


def test_the_best_of_several_is_the_one_with_the_highest_mean_logprob(daemon):
    body = {"max_tokens": 12, "temperature": 1, "seed": 9, "ignore_eos": True}
    many = daemon.complete(PROMPT, n=5, logprobs=0, **body).json()["choices"]
    mean = {c["text"]: sum(c["logprobs"]["token_logprobs"]) / 12 for c in many}
    best = sorted(mean, key=mean.get, reverse=True)
    r = daemon.complete(PROMPT, n=2, best_of=5, **body).json()
    assert [c["text"] for c in r["choices"]] == best[:2] and [c["index"] for c in r["choices"]] == [0, 1]
    assert r["usage"]["completion_tokens"] == 60 and r["choices"][0]["logprobs"] is None
    assert daemon.client.completions.create(model="", prompt=PROMPT, best_of=5, **{
        k: v for k, v in body.items() if k != "ignore_eos"}, extra_body={"ignore_eos": True}).choices[0].text == best[0]


def test_ids_are_those_of_the_tokenizer(daemon):
    c = daemon.choice(PROMPT, return_token_ids=True, max_tokens=10, ignore_eos=True)
    assert c["prompt_token_ids"] == daemon.tokens(PROMPT) and len(c["token_ids"]) == 10
    text = daemon.http.post("/detokenize", json={"tokens": c["token_ids"]}).json()["prompt"]
    assert text == c["text"]
    parts = daemon.events("/v1/completions", {"prompt": PROMPT, "max_tokens": 10, "temperature": 0, "ignore_eos": True,
                                              "return_token_ids": True})
    assert [i for p in parts for i in p["choices"][0]["token_ids"]] == c["token_ids"]
    assert [p["choices"][0].get("prompt_token_ids") for p in parts][:2] == [c["prompt_token_ids"], None]
    named = daemon.choice(PROMPT, return_tokens_as_token_ids=True, logprobs=1, max_tokens=10, ignore_eos=True)
    assert named["logprobs"]["tokens"] == [f"token_id:{i}" for i in c["token_ids"]]


def test_special_tokens_and_stop_strings_are_shown_where_they_are_wanted(daemon):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60, "temperature": 0}
    def content(**more):
        return daemon.http.post("/v1/chat/completions", json={**body, **more}).json()["choices"][0]["message"]["content"]
    end = daemon.tokens("<|im_end|>")
    assert content(stop_token_ids=end, include_stop_str_in_output=True, skip_special_tokens=False) == \
        content() + "<|im_end|>"
    word = content().split()[2]
    assert content(stop=word, include_stop_str_in_output=True) == content().split(word)[0] + word
    assert content(stop=[str(i) * 3 for i in range(100)] + [word]) == content().split(word)[0]


def test_a_message_is_continued(daemon):
    go_on = {"add_generation_prompt": False, "continue_final_message": True}
    ask = {"model": "", "messages": TURNS, "max_tokens": 8, "temperature": 0}
    prompt = daemon.http.post("/tokenize", json={"messages": TURNS, **go_on}).json()["tokens"]
    assert prompt[-len(daemon.tokens(TURNS[1]["content"])):] == daemon.tokens(TURNS[1]["content"])
    want = daemon.say(prompt, max_tokens=8)
    create = daemon.client.chat.completions.create
    assert create(**ask, extra_body=go_on).choices[0].message.content == want
    assert create(**ask, extra_body={**go_on, "echo": True}).choices[0].message.content == \
        TURNS[1]["content"] + want
    streamed = create(**ask, extra_body={**go_on, "echo": True}, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == TURNS[1]["content"] + want


def test_a_prompt_is_truncated(daemon):
    ids = daemon.tokens(CJK)
    c = daemon.choice(CJK, truncate_prompt_tokens=5, return_token_ids=True)
    assert c["prompt_token_ids"] == ids[-5:]
    r = daemon.complete("word " * 2000, truncate_prompt_tokens=-1, max_tokens=24, ignore_eos=True)
    assert r.status_code == 200 and r.json()["usage"]["total_tokens"] == 1024


def test_a_stream_ends_with_its_last_text(daemon):
    create = daemon.client.chat.completions.create
    chunks = list(create(model="", messages=TURNS[:1], max_tokens=6, temperature=0, stream=True,
                         extra_body={"ignore_eos": True}, stream_options={"include_usage": True}))
    assert len(chunks) == 8  # the role, a chunk for each token, the usage
    assert chunks[-2].choices[0].finish_reason == "length" and chunks[-2].choices[0].delta.content
    assert all(c.system_fingerprint == chunks[0].system_fingerprint for c in chunks)


@pytest.fixture(scope="module")
def named():
    d = Daemon(*OPTIONS, "--served-model-name", "small, smollm", "--cors-origins", "localhost")
    yield d
    d.wait_free()
    d.stop()


def sums(d):
    return {m[1]: float(m[2]) for m in re.finditer(r"^vllm:(\w+)_sum{[^}]*} (\S+)$", d.http.get("/metrics").text, re.M)}


def test_histograms_have_the_meaning_of_vllm(named):
    before = sums(named)
    ids = list(range(1000, 1100))
    assert named.complete(ids, max_tokens=7, ignore_eos=True).status_code == 200
    named.wait_free()
    once = sums(named)
    grown = {k: round(once[k] - before[k], 6) for k in once}
    assert grown["iteration_tokens_total"] == 107 and grown["request_prompt_tokens"] == 100
    assert grown["request_generation_tokens"] == 7 and grown["request_params_max_tokens"] == 7
    assert grown["request_params_n"] == 1
    assert 0 < grown["request_inference_time_seconds"] <= grown["e2e_request_latency_seconds"]
    named.complete(ids, max_tokens=7, ignore_eos=True, n=3)
    named.wait_free()
    assert sums(named)["request_params_n"] - once["request_params_n"] == 3
    assert sums(named)["request_generation_tokens"] - once["request_generation_tokens"] == 21


def test_several_names_and_no_path(named):
    d = named
    assert [m.id for m in d.client.models.list()] == ["small", "smollm"]
    assert ".gguf" not in d.http.get("/v1/models").text
    for name in ("small", "smollm"):
        r = d.client.completions.create(model=name, prompt="Hi", max_tokens=1)
        assert r.model == name and r.system_fingerprint.startswith("fp_")
    with pytest.raises(openai.NotFoundError):
        d.client.completions.create(model="gpt-4", prompt="Hi", max_tokens=1)
    bare = openai.OpenAI(base_url=d.url, api_key="none", max_retries=0)
    assert bare.chat.completions.create(model="small", messages=TURNS[:1], max_tokens=1).choices
    r = d.http.get("/v1/models/", headers={"Origin": "http://localhost:3000"})
    assert r.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in d.http.get("/v1/models", headers={"Origin": "http://a.b"}).headers
