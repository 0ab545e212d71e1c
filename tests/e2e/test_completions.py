"""/v1/completions as the openai package sees it: every shape of prompt, streamed and not."""

import pytest

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model(daemon):
    return daemon.client.models.list().data[0].id


def collect(chunks):
    """{index: (text, finish_reason)} of a stream of the client."""
    out = {}
    for chunk in chunks:
        for c in chunk.choices:
            text, end = out.get(c.index, ("", None))
            assert end is None, "a choice goes on after its end"
            out[c.index] = (text + c.text, c.finish_reason)
    return out


@pytest.mark.parametrize("shape", ["string", "list", "ids", "lists of ids"])
@pytest.mark.parametrize("n", [1, 2])
def test_every_shape_of_prompt_streams_the_same_choices(daemon, model, shape, n):
    prompt = {"string": PROMPT, "list": [PROMPT, "The sea was"], "ids": daemon.tokens(PROMPT),
              "lists of ids": [daemon.tokens(PROMPT), daemon.tokens("The sea was")]}[shape]
    args = dict(model=model, prompt=prompt, n=n, max_tokens=10, temperature=0.8, seed=21)
    whole = daemon.client.completions.create(**args)
    count = n * (2 if "list" in shape else 1)
    assert [c.index for c in whole.choices] == list(range(count))
    assert whole.object == "text_completion" and whole.id.startswith("cmpl-") and whole.model == model
    chunks = list(daemon.client.completions.create(**args, stream=True, stream_options={"include_usage": True}))
    assert collect(chunks) == {c.index: (c.text, c.finish_reason) for c in whole.choices}
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert whole.usage.prompt_tokens == sum(
        len(daemon.tokens(p)) for p in ([PROMPT, "The sea was"] if "list" in shape else [PROMPT]))


def test_text_and_its_token_ids_are_one_prompt(daemon, model):
    args = dict(model=model, max_tokens=12, temperature=0, logprobs=2)
    text = daemon.client.completions.create(prompt=PROMPT, **args).choices[0]
    ids = daemon.client.completions.create(prompt=daemon.tokens(PROMPT), **args).choices[0]
    assert text == ids


def test_logprobs_have_the_shapes_that_evaluators_read(daemon, model):
    c = daemon.client.completions.create(model=model, prompt=PROMPT, max_tokens=7, temperature=0, logprobs=4,
                                         extra_body={"ignore_eos": True}).choices[0]
    lp = c.logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset) == 7
    assert "".join(lp.tokens) == c.text and lp.text_offset == sorted(lp.text_offset)
    for token, p, top in zip(lp.tokens, lp.token_logprobs, lp.top_logprobs):
        assert p <= 0 and len(top) == 4 and top[token] == p == max(top.values())
    assert daemon.client.completions.create(model=model, prompt=PROMPT, max_tokens=2).choices[0].logprobs is None


def test_a_score_needs_no_new_token(daemon, model):
    """How evaluation harnesses score a text: echo, logprobs and max_tokens 0."""
    texts = ["The capital of France is Paris.", "The capital of France is Tuesday."]
    r = daemon.client.completions.create(model=model, prompt=texts, max_tokens=0, echo=True, logprobs=1)
    assert [c.text for c in r.choices] == texts and r.usage.completion_tokens == 0
    good, bad = (sum(c.logprobs.token_logprobs[1:]) for c in r.choices)
    assert bad < good < 0


@pytest.mark.parametrize("words", [1, 2, 3])
def test_stop_strings_of_several_tokens_are_not_leaked(daemon, model, words):
    args = dict(model=model, prompt=PROMPT, max_tokens=48, temperature=0)
    whole = daemon.client.completions.create(**args).choices[0].text
    stop = " ".join(whole.split()[8:8 + words])
    assert stop in whole
    want = (whole[: whole.index(stop)], "stop")
    got = daemon.client.completions.create(**args, stop=stop).choices[0]
    assert (got.text, got.finish_reason) == want
    shown = ""
    for chunk in daemon.client.completions.create(**args, stop=[stop], stream=True):
        shown += chunk.choices[0].text
        assert want[0].startswith(shown), "text beyond the stop string was sent"
    assert shown == want[0]


def test_seeds_decide_whatever_the_way(daemon, model):
    def say(seed, **more):
        args = dict(model=model, prompt="My favourite animal", max_tokens=24, temperature=1.0, seed=seed, **more)
        if more.get("stream"):
            return collect(daemon.client.completions.create(**args))[0][0]
        return daemon.client.completions.create(**args).choices[0].text
    texts = [say(s) for s in range(6)]
    assert texts == [say(s, stream=True) for s in range(6)] and len(set(texts)) == 6


def test_a_forbidden_token_is_never_drawn(daemon, model):
    free = daemon.client.completions.create(model=model, prompt="The capital of France is", max_tokens=1,
                                            temperature=0).choices[0].text
    (id_,) = daemon.tokens(free)
    for seed in range(4):
        c = daemon.client.completions.create(model=model, prompt="The capital of France is", max_tokens=16,
                                             temperature=1, seed=seed, logit_bias={str(id_): -100}, logprobs=0)
        assert free not in c.choices[0].logprobs.tokens


def test_penalties_of_zero_change_nothing_and_large_ones_do(daemon, model):
    args = dict(model=model, prompt="one two one two one two", max_tokens=32, temperature=0)
    plain = daemon.client.completions.create(**args).choices[0].text
    same = daemon.client.completions.create(**args, presence_penalty=0, frequency_penalty=0,
                                            extra_body={"repetition_penalty": 1.0}).choices[0].text
    assert same == plain
    for more in ({"presence_penalty": 2}, {"frequency_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}):
        assert daemon.client.completions.create(**args, **more).choices[0].text != plain
