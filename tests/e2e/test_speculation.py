"""speculative = lookup: the same answers as without it, to the byte and with their log-probabilities, in fewer steps; what a
client and a scrape see of it."""

import re
import threading

import pytest

from harness import MODEL, ROOT, Daemon, refused, vramd
from test_recurrent import FAMILIES, write
from test_recurrent import OPTIONS as RECURRENT

SMALL = ["--max-model-len", "1024", "--max-num-seqs", "8", "--no-log-requests"]
CODE = """def total(prices, rate):
    result = 0
    for price in prices:
        result += price * rate
    return result

def mean(prices):
    if not prices:
        return 0
    return sum(prices) / len(prices)
"""
EDIT = f"```python\n{CODE}```\nThe same code again:\n```python\ndef total(prices, rate):\n"
VERSE = "The wind blew north, the wind blew south, the wind blew east, the wind blew"
JSON = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
    "type": "object", "required": ["name", "city"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "maxLength": 40}, "city": {"type": "string", "maxLength": 40}}}}}
COPY = 'Ann: {"name": "Ann Archer", "city": "Bristol"}\nAnn again: '

# Each says something that a run of several tokens may break: where it ends, what a token depends on, what is shown of it.
CASES = {
    "greedy": {"prompt": EDIT},
    "sampled": {"prompt": EDIT, "temperature": 0.7, "seed": 7},
    "truncated": {"prompt": VERSE, "temperature": 0.9, "seed": 3, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    "logprobs": {"prompt": EDIT, "logprobs": 5},
    "sampled logprobs": {"prompt": VERSE, "logprobs": 3, "temperature": 0.6, "seed": 11},
    "penalties": {"prompt": VERSE, "repetition_penalty": 1.05, "frequency_penalty": 0.02, "presence_penalty": 0.1},
    "bias": {"prompt": VERSE, "logit_bias": {"260": -2, "5": 1}},
    "stop": {"prompt": EDIT, "stop": ["price * ra", "never"]},
    "stop and show it": {"prompt": EDIT, "stop": ["in prices"], "include_stop_str_in_output": True},
    "stop within a word": {"prompt": VERSE, "stop": ["w nor"]},
    "one token": {"prompt": EDIT, "max_tokens": 1},
    "seven tokens": {"prompt": EDIT, "max_tokens": 7},
    "33 tokens": {"prompt": VERSE, "max_tokens": 33},
    "two choices": {"prompt": EDIT, "n": 2, "temperature": 0.5, "seed": 1},
    "best of": {"prompt": VERSE, "n": 1, "best_of": 3, "temperature": 0.8, "seed": 2},
    "echo": {"prompt": VERSE, "echo": True, "logprobs": 1},
    "eos": {"prompt": EDIT, "ignore_eos": False, "max_tokens": 400},
    "min tokens": {"prompt": EDIT, "ignore_eos": False, "min_tokens": 60},
    "bad words": {"prompt": VERSE, "bad_words": ["north", " east"]},
    "json": {"prompt": COPY, "response_format": JSON, "max_tokens": 60, "ignore_eos": False},
    "sampled json": {"prompt": COPY, "response_format": JSON, "temperature": 0.8, "seed": 4, "ignore_eos": False},
    "regex": {"prompt": VERSE, "structured_outputs": {"regex": "( [a-z]+,?){4,20}"}, "ignore_eos": False},
    "allowed": {"prompt": VERSE, "allowed_token_ids": list(range(200, 9000))},
}


def body(case):
    return {"max_tokens": 90, "temperature": 0, "ignore_eos": True, **CASES[case]}


def ask(d, case):
    r = d.http.post("/v1/completions", json=body(case))
    assert r.status_code == 200, r.text
    return r.json()


def plain(answer):
    """What must not differ."""
    usage = {k: v for k, v in answer["usage"].items() if k != "completion_tokens_details"}
    usage["prompt_tokens_details"] = None  # what was cached depends on what came before
    return answer["choices"], usage


@pytest.fixture(scope="module")
def off():
    d = Daemon(*SMALL)
    yield {case: plain(ask(d, case)) for case in CASES}
    assert metrics(d)["vramd_speculative_draft_tokens_total"] == 0
    assert "completion_tokens_details" not in ask(d, "greedy")["usage"]
    d.stop()


@pytest.fixture(scope="module", params=[["--speculative=lookup"], ["--speculative=lookup", "--speculative-tokens=15", "--kv-cache-dtype=f16",
                                                                      "--itl-slo-ms=60000", "--threads=1"]],
                ids=["plain", "long"])
def on(request):
    d = Daemon(*SMALL, *request.param)
    yield d
    d.wait_free()
    d.stop()


def metrics(d):
    return {k: float(v) for k, v in re.findall(r"^((?:vramd_|vllm:)\w+)(?:\{[^}]*\})? (\S+)$", d.http.get("/metrics").text, re.M)}


def predicted(answer):
    x = answer["usage"]["completion_tokens_details"]
    return x["accepted_prediction_tokens"], x["rejected_prediction_tokens"]


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_the_same(case, on, off):
    assert plain(ask(on, case)) == off[case]


def test_the_answers_are_the_same_side_by_side(on, off):
    out = {}
    threads = [threading.Thread(target=lambda c=c: out.update({c: plain(ask(on, c))})) for c in CASES]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert out == off


@pytest.mark.parametrize("case", ["greedy", "sampled logprobs", "stop within a word", "json", "33 tokens"])
def test_a_stream_is_the_same(case, on, off):
    events = on.events("/v1/completions", body(case))
    (want,), _ = off[case]
    assert "".join(e["choices"][0]["text"] for e in events) == want["text"]
    assert [e["choices"][0]["finish_reason"] for e in events][-1] == want["finish_reason"]
    if want["logprobs"]:
        got = [t for e in events if e["choices"][0]["logprobs"] for t in e["choices"][0]["logprobs"]["token_logprobs"]]
        assert got == want["logprobs"]["token_logprobs"]


def test_what_was_guessed_is_counted(on):
    before = metrics(on)
    answers = [ask(on, "greedy"), ask(on, "json"), ask(on, "two choices")]
    after = metrics(on)
    accepted, rejected = (sum(x) for x in zip(*map(predicted, answers)))
    assert predicted(answers[0])[0] > 20 and predicted(answers[1])[0] > 3
    grown = {k: after[k] - before[k] for k in after if "specul" in k or "spec_decode" in k}
    assert grown["vramd_speculative_accepted_tokens_total"] == accepted
    assert grown["vramd_speculative_draft_tokens_total"] == accepted + rejected
    assert 0 < grown["vramd_speculative_drafts_total"] <= accepted + rejected
    for own, theirs in (("drafts", "drafts"), ("draft_tokens", "draft_tokens"), ("accepted_tokens", "accepted_tokens")):
        assert after[f"vramd_speculative_{own}_total"] == after[f"vllm:spec_decode_num_{theirs}_total"]


def test_fewer_steps_say_the_same(on):
    ask(on, "greedy")  # then the prefix cache has its prompt, which is one step
    r = on.http.post("/v1/completions", json={**body("greedy"), "receipt": True}).json()
    assert r["usage"]["memory"]["steps"] + predicted(r)[0] == 90


def test_a_request_may_do_without(on, off):
    r = on.http.post("/v1/completions", json={**body("greedy"), "speculative": False}).json()
    assert plain(r) == off["greedy"] and predicted(r) == (0, 0)
    r = on.http.post("/v1/completions", json={**body("greedy"), "speculative": "no"})
    assert r.status_code == 400 and r.json()["error"]["param"] == "speculative"


def test_chat_counts_it_too(on):
    r = on.client.chat.completions.create(model="", messages=[{"role": "user", "content": "Say: one two one two one two one two"}],
                                          max_tokens=40, temperature=0, extra_body={"ignore_eos": True})
    x = r.usage.completion_tokens_details
    assert x.accepted_prediction_tokens >= 0 and x.rejected_prediction_tokens >= 0


def test_clients_that_leave_are_cancelled(on):
    for _ in range(4):
        with on.http.stream("POST", "/v1/completions", json={**body("greedy"), "max_tokens": 900, "stream": True}) as r:
            for i, _ in zip(range(6), r.iter_lines()):
                pass
    on.wait_free()


def test_slots_say_so(on):
    assert all(s["speculative"] is True for s in on.http.get("/slots").json())


@pytest.mark.parametrize("way", [["--kv-cache-dtype=int4"], ["--kv-cache-dtype=int8"], ["--tensor-parallel-size=3", "--threads=3"]],
                         ids=["int4", "int8", "ranks"])
def test_other_engines_say_the_same(way):
    said = {}
    for option in ("off", "lookup"):
        d = Daemon(*SMALL, *way, f"--speculative={option}")
        try:
            said[option] = [plain(ask(d, case)) for case in ("greedy", "sampled logprobs", "json")]
            guessed = metrics(d)["vramd_speculative_accepted_tokens_total"]
            assert (guessed > 20) == (option == "lookup")
        finally:
            d.stop()
    assert said["off"] == said["lookup"]


def test_generate_says_the_same():
    flags = ["--model", MODEL, "--max-tokens", "80"]
    said = [vramd("generate", *flags, *more, EDIT).stdout for more in ([], ["--speculative=lookup"])]
    assert said[0] == said[1] and len(said[0]) > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_recurrent_states_go_back(family, tmp_path):
    """Texts of three words repeat themselves. (Wrong guesses at all places of a chunk: tests/engine/test_guesses.c.)"""
    model, said = write(tmp_path / "m.gguf", family), {}
    for option in ("off", "lookup"):
        d = Daemon("--model", str(model), *RECURRENT, f"--speculative={option}")
        try:
            bodies = [{"prompt": [7 + i, 9, 4, 7 + i, 9, 4, 3 + i] * (2 + i), "max_tokens": 120, "ignore_eos": True, "temperature": 2, "allowed_token_ids": [4, 7, 9],
                       "seed": i, "logprobs": 2} for i in range(4)]
            said[option] = [plain(d.http.post("/v1/completions", json=b).json()) for b in bodies]
            assert (metrics(d)["vramd_speculative_draft_tokens_total"] > 10) == (option == "lookup")
        finally:
            d.stop()
    assert said["off"] == said["lookup"]


def test_an_encoder_is_refused():
    r = refused("--model", str(ROOT / "tests/golden/families/bert.gguf"), "--speculative=lookup")
    assert "speculative = lookup: the model is an encoder" in r.stderr
