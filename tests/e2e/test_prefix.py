"""The prefix cache and forks from outside: hits are told, change nothing, and are kept apart by salt."""

import pytest

from harness import Daemon
from test_load import ask, counter, crowd

TEXT = "The old harbour of the town was full of ships that had come from every part of the sea. " * 4


def complete(d, **body):
    r = d.http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 12, "temperature": 0, "logprobs": 3, **body})
    assert r.status_code == 200, r.text
    return r.json()


def said(answer):
    return [(c["text"], c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"]) for c in answer["choices"]]


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture()
def fresh():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "8")
    yield d
    d.stop()


def test_a_second_identical_chat_is_found_and_answered_alike(fresh):
    messages = [{"role": "user", "content": TEXT + "What was the harbour full of?"}]

    def chat():
        return fresh.client.chat.completions.create(model=fresh.client.models.list().data[0].id, messages=messages, max_tokens=16, temperature=0,
                                                    logprobs=True, top_logprobs=2)
    first, second = chat(), chat()
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    found = second.usage.prompt_tokens_details.cached_tokens
    assert found > 0 and found % 16 == 0 and found < second.usage.prompt_tokens
    assert second.usage.prompt_tokens == first.usage.prompt_tokens
    assert second.choices[0].message.content == first.choices[0].message.content
    assert [t.logprob for t in second.choices[0].logprobs.content] == [t.logprob for t in first.choices[0].logprobs.content]
    fresh.wait_free()
    kv = fresh.memory()["kv"]
    assert kv["cached"] * 16 >= found and kv["free"] + kv["cached"] == kv["blocks"] and kv["used"] == 0
    assert counter(fresh, "vllm:prefix_cache_hits_total") == found
    assert counter(fresh, "vllm:prefix_cache_queries_total") == 2 * first.usage.prompt_tokens
    assert counter(fresh, "vllm:prompt_tokens_total") == 2 * first.usage.prompt_tokens


def test_each_chunk_of_a_stream_tells_what_was_found(fresh):
    body = {"prompt": TEXT, "max_tokens": 4, "temperature": 0, "ignore_eos": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    first, second = fresh.events("/v1/completions", body), fresh.events("/v1/completions", body)
    assert {cached(d) for d in first} == {0}
    assert len({cached(d) for d in second}) == 1 and cached(second[0]) > 0


def test_the_next_turn_finds_the_answer_too(fresh):
    first = complete(fresh, max_tokens=40, ignore_eos=True)
    more = complete(fresh, prompt=TEXT + first["choices"][0]["text"] + " And then")
    assert cached(more) >= (first["usage"]["total_tokens"] - 1) // 16 * 16 - 16 > first["usage"]["prompt_tokens"]


def test_hits_are_kept_apart_by_salt(fresh):
    first, second = complete(fresh, cache_salt="one"), complete(fresh, cache_salt="one")
    assert cached(first) == 0 and cached(second) > 0
    assert cached(complete(fresh, cache_salt="two")) == 0
    assert cached(complete(fresh)) == 0
    assert said(first) == said(second) == said(complete(fresh))
    r = fresh.http.post("/v1/completions", json={"prompt": "x", "cache_salt": ""})
    assert r.status_code == 400 and r.json()["error"]["param"] == "cache_salt"


def test_scored_prompts_are_computed_and_leave_blocks_for_others(fresh):
    first = complete(fresh, echo=True, max_tokens=1)
    again = complete(fresh, echo=True, max_tokens=1)
    assert cached(first) == cached(again) == 0 and said(first) == said(again)
    assert cached(complete(fresh)) > 0


def test_without_prefix_caching_nothing_is_found_and_all_is_said_alike(fresh):
    want = said(complete(fresh))
    assert said(complete(fresh)) == want
    d = Daemon("--max-model-len", "1024", "--enable-prefix-caching=false")
    try:
        for _ in range(2):
            answer = complete(d)
            assert cached(answer) == 0 and said(answer) == want
        assert d.memory()["kv"]["cached"] == 0 and counter(d, "vllm:prefix_cache_queries_total") == 0
        forks = complete(d, n=3, temperature=1, seed=5)
        assert said(forks) == [said(complete(fresh, temperature=1, seed=5 + i))[0] for i in range(3)]
    finally:
        d.stop()


def test_choices_of_one_prompt_compute_it_once_and_say_what_each_says_alone(fresh):
    alone = [said(complete(fresh, temperature=1, seed=7 + i, cache_salt=f"alone {i}"))[0] for i in range(6)]
    before = counter(fresh, "vramd_step_tokens_sum")
    forks = complete(fresh, n=6, temperature=1, seed=7, return_memory=True)
    rows = counter(fresh, "vramd_step_tokens_sum") - before
    assert said(forks) == alone and len({c[0] for c in alone}) > 1
    n_prompt = forks["usage"]["prompt_tokens"]
    assert rows <= n_prompt + 6 * 13  # the prompt once, and its last row and 11 more for each
    fresh.wait_free()


def test_a_choice_that_stops_early_or_a_client_that_leaves_frees_only_its_own(fresh):
    body = {"prompt": TEXT, "max_tokens": 60, "temperature": 1, "seed": 3, "n": 4, "stop": [" the", ","], "stream": True}
    want = ask(fresh, body)
    with fresh.http.stream("POST", "/v1/completions", json={**body, "max_tokens": 600, "ignore_eos": True, "stop": None}) as r:
        next(r.iter_lines())
    assert ask(fresh, body) == want
    fresh.wait_free()


def test_a_crowd_with_one_beginning_under_preemption_says_what_each_says_alone():
    jobs = [{"prompt": TEXT + f"Number {i}:", "max_tokens": 40, "temperature": i % 2, "seed": i, "ignore_eos": True,
             "n": 1 + i % 3} for i in range(12)]
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "8", "--kv-cache-tokens", "416", "--watermark", "0")
    try:
        alone = [ask(d, b) for b in jobs]
        assert crowd(jobs, lambda b: ask(d, b)) == alone
        assert counter(d, "vllm:num_preemptions_total") > 0
        d.wait_free()
    finally:
        d.stop()
