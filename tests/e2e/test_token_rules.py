"""Which tokens may be drawn: allowed_token_ids, bad_words, logit_bias of -100 and 100."""

import itertools
import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import Daemon
from test_load import counter

PROMPT = "Once upon a time"


def ids_of(daemon, *texts):
    """Ids of texts that are one token each."""
    got = [daemon.tokens(t) for t in texts]
    assert all(len(g) == 1 for g in got), got
    return [g[0] for g in got]


def chat(daemon, **more):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, **more}
    r = daemon.http.post("/v1/chat/completions", json=body)
    assert r.status_code == 200, r.text
    return [c["message"]["content"] for c in r.json()["choices"]]


def pieces(choice):
    return choice["logprobs"]["tokens"]


def test_allowed_token_ids_are_all_that_is_drawn(daemon):
    ids = ids_of(daemon, " green", " blue", " red")
    body = {"allowed_token_ids": ids, "temperature": 2, "max_tokens": 40, "n": 3, "seed": 4}
    whole = daemon.complete("The sky is", **body).json()["choices"]
    assert len(whole) == 3
    for c in whole:
        words = c["text"].split(" ")[1:]
        assert len(words) == 40 and set(words) == {"green", "blue", "red"}
    streamed = ["", "", ""]
    for e in daemon.events("/v1/completions", {"prompt": "The sky is", **body}):
        for c in e["choices"]:
            streamed[c["index"]] += c["text"]
    assert streamed == [c["text"] for c in whole]
    for text in chat(daemon, allowed_token_ids=ids, n=2):
        assert set(text.split()) <= {"green", "blue", "red"} and len(text.split()) == 12
    assert daemon.say("The sky is", allowed_token_ids=ids[:1], max_tokens=3) == " green" * 3


def test_logprobs_are_of_what_is_allowed(daemon):
    ids = ids_of(daemon, " green", " blue", " red")
    c = daemon.choice("The sky is", allowed_token_ids=ids, logprobs=5, max_tokens=8, temperature=0.7, seed=1)
    for token, lp, top in zip(pieces(c), c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"]):
        assert set(top) == {" green", " blue", " red"} and top[token] == lp
        assert math.isclose(sum(math.exp(x) for x in top.values()), 1, abs_tol=1e-4)
    free = daemon.choice("The sky is", logprobs=5, max_tokens=1)["logprobs"]["top_logprobs"][0]
    banned = max(free, key=free.get)
    (id_,) = ids_of(daemon, banned)
    left = daemon.choice("The sky is", logprobs=5, max_tokens=1, logit_bias={str(id_): -100})["logprobs"]
    assert banned not in left["top_logprobs"][0]
    second = sorted(free, key=free.get)[-2]  # it has its share of the banned token's probability
    assert left["top_logprobs"][0][second] > free[second]


def test_a_bias_of_100_excludes_all_others_and_one_of_99_does_not(daemon):
    a, b = ids_of(daemon, " green", " blue")
    two = daemon.choice("The sky is", logit_bias={str(a): 100, str(b): 100}, logprobs=5, max_tokens=30,
                        temperature=2, seed=3)
    assert set(pieces(two)) == {" green", " blue"}
    assert all(len(t) == 2 for t in two["logprobs"]["top_logprobs"])
    near = daemon.choice("The sky is", logit_bias={str(a): 99}, logprobs=5, max_tokens=1)
    assert len(near["logprobs"]["top_logprobs"][0]) == 5


def contains(tokens, sequence):
    return any(tuple(tokens[i:i + len(sequence)]) == sequence for i in range(len(tokens)))


def common(daemon, texts, n, length):
    """The n most frequent runs of so many tokens, of which the tokenizer would make the same."""
    runs = Counter(r for t in texts for r in zip(*(t[k:] for k in range(length))))
    good = (r for r, _ in runs.most_common() if r[0][0] == " " and "\ufffd" not in "".join(r)
            and all(len(daemon.tokens(x)) == length for x in ("".join(r), "".join(r)[1:])))
    return list(itertools.islice(good, n))


def test_bad_words_never_appear_in_200_sampled_completions(daemon):
    many = {"n": 50, "max_tokens": 12, "temperature": 0.9, "top_p": 0.95, "logprobs": 0, "ignore_eos": True}
    free = [pieces(c) for c in daemon.complete(PROMPT, **many, seed=0).json()["choices"]]
    bad = common(daemon, free, 2, 1) + common(daemon, free, 3, 2)
    assert len(bad) == 5 and all(any(contains(t, b) for t in free) for b in bad)
    made = []
    for seed in range(4):
        r = daemon.complete(PROMPT, seed=1000 * seed, bad_words=["".join(b) for b in bad], **many)
        assert r.status_code == 200, r.text
        made += [pieces(c) for c in r.json()["choices"]]
    assert len(made) == 200 and len({tuple(m) for m in made}) > 150
    for tokens, b in itertools.product(made, bad):
        assert not contains(tokens, b) and not contains(tokens, (b[0][1:], *b[1:])), (b, tokens)
    # The parts of a sequence may appear.
    assert any(contains(t, (part,)) for t in made for b in bad[2:] for part in b)


def test_a_bad_word_begins_in_the_output_not_in_the_prompt(daemon):
    """As vLLM counts: the output's own tokens are looked at."""
    c = daemon.choice(PROMPT, logprobs=0, max_tokens=2)
    first, second = pieces(c)
    assert daemon.tokens(first + second) == daemon.tokens(first) + daemon.tokens(second)
    rule = {"bad_words": [first + second], "logprobs": 0}
    barred = pieces(daemon.choice(PROMPT, max_tokens=2, **rule))
    assert barred[0] == first and barred[1] != second
    assert pieces(daemon.choice(PROMPT + first, max_tokens=1, **rule)) == [second]


def test_streams_and_wholes_with_bad_words_are_equal_and_so_is_a_request_in_a_crowd(daemon):
    rule = {"bad_words": ["the little", "there was"], "temperature": 0.8, "seed": 5, "max_tokens": 40}
    alone = daemon.say(PROMPT, **rule)
    parts = daemon.events("/v1/completions", {"prompt": PROMPT, **rule})
    assert "".join(c["text"] for e in parts for c in e["choices"]) == alone
    with ThreadPoolExecutor(24) as pool:
        jobs = [pool.submit(daemon.say, PROMPT, **(rule if i % 2 else {"max_tokens": 40})) for i in range(24)]
        texts = [j.result() for j in jobs]
    assert set(texts[1::2]) == {alone} and len(set(texts[::2])) == 1


def test_where_no_token_is_left_the_request_ends_with_an_error_and_others_go_on(daemon):
    (id_,) = ids_of(daemon, " green")
    assert daemon.tokens(" green green") == [id_, id_]
    rule = {"allowed_token_ids": [id_], "bad_words": [" green green"]}
    assert daemon.say("The sky is", max_tokens=1, **rule) == " green"
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(daemon.say, PROMPT, max_tokens=60, ignore_eos=True)
        r = daemon.complete("The sky is", max_tokens=5, **rule)
        assert other.result() == daemon.say(PROMPT, max_tokens=60, ignore_eos=True)
    assert r.status_code == 400 and "no token is allowed after 1 token" in r.json()["error"]["message"], r.text
    r = daemon.http.post("/v1/completions", json={"prompt": "The sky is", "max_tokens": 5, "stream": True, **rule})
    events = [json.loads(e[6:]) for e in r.text.split("\n\n") if e.startswith("data: {")]
    assert events[0]["choices"][0]["text"] == " green" and "no token is allowed" in events[-1]["error"]["message"]
    daemon.wait_free()


@pytest.mark.parametrize("more, field", [
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"allowed_token_ids": [10**9]}, "allowed_token_ids"),
    ({"bad_words": [""]}, "bad_words"),
    ({"bad_words": ["x"] * 257}, "bad_words"),
    ({"allowed_token_ids": [5], "logit_bias": {"5": -100}}, "logit_bias"),
])
def test_what_cannot_be_is_refused_with_field_and_remedy(daemon, more, field):
    for path, body in (("/v1/completions", {"prompt": "x"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
        r = daemon.http.post(path, json={**body, **more})
        assert r.status_code == 400 and r.json()["error"]["param"] == field, r.text


def test_requests_with_bad_words_that_are_preempted_say_what_they_say_alone():
    d = Daemon("--max-model-len", "512", "--max-num-seqs", "8", "--kv-cache-tokens", "768")
    try:
        def ask(i):
            return d.say(f"{PROMPT}, {i}", max_tokens=110, bad_words=["there was", "the little"], ignore_eos=True,
                         temperature=0.7, seed=i)
        alone = [ask(i) for i in range(8)]
        assert counter(d, "vramd_preemptions_total") == 0
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == alone
        assert counter(d, "vramd_preemptions_total") > 0
        assert not any("there was" in t for t in alone)
        d.wait_free()
    finally:
        d.stop()
