"""K and V of 4 bits, the newest 64 tokens in full precision: one answer, with the same log-probabilities, whatever becomes
of the blocks of both."""

import concurrent.futures
import json
import random
import time

import pytest

import tiny_model
from harness import Daemon, vramd
from test_load import counter, crowd

ROWS, SEQS, LENGTH = 64, 8, 1024
OPTIONS = ["--max-model-len", str(LENGTH), "--max-num-seqs", str(SEQS), "--max-num-batched-tokens", str(ROWS)]
SHARE, TOGETHER = 64 // 16 + 2, ROWS // 16  # blocks of the tail: of each sequence, and for the rows of a step
TYPES = {"int4": ["--kv-cache-dtype", "int4"], "k8v4": ["--kv-cache-dtype", "int8", "--cache-type-v", "int4"]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("int4") / "tiny.gguf"
    tiny_model.write(str(path), "F16", width=256, context=LENGTH)
    return str(path)


@pytest.fixture(scope="module", params=TYPES)
def served(request, tiny):
    d = Daemon("--model", tiny, *OPTIONS, *TYPES[request.param])
    yield d, ["--model", tiny, *TYPES[request.param]]
    d.stop()


def body(words, length, **more):
    r = random.Random(words)
    return {"prompt": [r.randrange(300) for _ in range(length)], "max_tokens": 40, "temperature": 0, "logprobs": 3, "ignore_eos": True,
            **more}


def ask(d, b):
    """What was said with its log-probabilities, and how many tokens were found."""
    r = d.http.post("/v1/completions", json=b)
    assert r.status_code == 200, r.text
    a = r.json()
    said = [(c["text"], c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"]) for c in a["choices"]]
    return said, a["usage"]["prompt_tokens_details"]["cached_tokens"]


def jobs():
    """Several begin alike, some are forked, half are drawn; all are longer than the tail."""
    out = [body(i % 5, 150 + 70 * (i % 5), temperature=(i % 2) * 0.7, seed=i, n=1 + i % 3) for i in range(12)]
    for i, b in enumerate(out):
        b["prompt"] = b["prompt"] + body(100 + i, i % 4)["prompt"]
    return out


def test_the_tail_is_planned_apart_and_the_ledger_agrees(served):
    d, words = served
    p = json.loads(vramd("plan", *words, "--json", *OPTIONS, "--memory", "1GiB").stdout)
    full = json.loads(vramd("plan", *words[:2], "--json", *OPTIONS, "--memory", "1GiB").stdout)
    all_of_it, tail = p["kv"]["groups"]
    assert all_of_it["blocks"] == SEQS * LENGTH // 16 and tail["blocks"] == SEQS * SHARE + TOGETHER
    f16 = full["kv"]["groups"][0]["block_bytes"]
    assert tail["block_bytes"] == f16 and 2.5 < f16 / all_of_it["block_bytes"] < 3.8
    assert p["kv"]["bytes_per_token"] * 16 == all_of_it["block_bytes"]
    assert "newest 64 tokens in full" in vramd("plan", *words, *OPTIONS, "--memory", "1GiB", "--details").stdout
    kv = next(c for c in d.memory()["classes"] if c["class"] == "kv")
    assert kv["ledger_bytes"] == kv["plan_bytes"]
    assert [(g["window"], g["tail"]) for g in d.memory()["kv"]["groups"]] == [(0, False), (64, True)]


def test_crowds_hits_forks_chunks_and_preemption_change_no_bit(served):
    d, words = served
    alone = [ask(d, b)[0] for b in jobs()]
    assert [x[0] for x in crowd(jobs(), lambda b: ask(d, b))] == alone
    d.wait_free()
    b = body(77, 500)
    first, again = ask(d, b), ask(d, b)
    assert first == (again[0], 0) and again[1] == 496
    longer = {**b, "prompt": b["prompt"][:300] + body(78, 100)["prompt"]}
    behind, found = ask(d, longer)  # its beginning is known, but the newest tokens there may be gone
    few = Daemon(*words, "--max-model-len", str(LENGTH), "--max-num-batched-tokens", "256", "--max-num-seqs", "8",
                 "--prefix-caching=false", "--kv-cache-tokens", "1024", "--block-size", "16")
    try:
        assert ask(few, longer) == (behind, 0)
        assert ask(few, b)[0] == first[0]
        for _ in range(10):  # until so many were there at once that one had to give way
            assert [x[0] for x in crowd(jobs(), lambda b: ask(few, b))] == alone
            if counter(few, "vramd_preemptions_total") > 0:
                break
        assert counter(few, "vramd_preemptions_total") > 0
        few.wait_free()
    finally:
        few.stop()


def test_a_budget_that_moves_changes_no_bit(served):
    d, words = served
    alone = [ask(d, b)[0] for b in jobs()]
    e = Daemon(*words, *OPTIONS, "--kv-cache-tokens", str(4 * LENGTH))
    try:
        m = e.memory()
        small, large = m["smallest_budget_bytes"], m["budget_bytes"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(crowd, jobs(), lambda b: ask(e, b))
            r, n = random.Random(1), 0
            while not answers.done():
                assert e.http.put("/v1/memory", json={"budget_bytes": r.randrange(small, large)}).status_code in (200, 202, 409)
                kv = next(c for c in e.memory()["classes"] if c["class"] == "kv")
                assert kv["plan_bytes"] == kv["ledger_bytes"]
                n += 1
                time.sleep(0.02)
            assert [x[0] for x in answers.result()] == alone and n > 2
        e.wait_free()
    finally:
        assert "invariant" not in e.stop()


def test_a_restart_finds_both_on_disk_and_changes_no_bit(served, tmp_path):
    d, words = served
    b = body(5, 900)
    said = ask(d, b)[0]
    disk = ["--kv-disk", str(tmp_path / "disk")]
    e = Daemon(*words, *OPTIONS, *disk)
    assert ask(e, b) == (said, 0)
    for _ in range(200):
        if e.memory()["kv"]["disk"]["chunks"] >= 7:
            break
        time.sleep(0.05)
    e.stop()
    e = Daemon(*words, *OPTIONS, *disk)
    again, found = ask(e, b)
    assert again == said and found == 896 - 896 % 128
    assert counter(e, "vramd_kv_tier_load_errors_total") == 0
    e.stop()
