"""Gemma 3 270M, where it has been fetched (tools/get-model.sh gemma3): a vocabulary of 262,144, one KV head, windows of
512 on 15 of 18 layers. Its plan, its ledger, what it holds of a long sequence, and what it says."""

import json
import os

import pytest

from harness import ROOT, Daemon, vramd

GEMMA = os.environ.get("VRAMD_TEST_GEMMA")
pytestmark = pytest.mark.skipif(not GEMMA, reason="VRAMD_TEST_GEMMA names no file")
ROWS, SEQS, LENGTH = 128, 2, 2048
OPTIONS = ["--max-model-len", str(LENGTH), "--max-num-seqs", str(SEQS), "--max-num-batched-tokens", str(ROWS),
           "--kv-cache-tokens", str(SEQS * LENGTH)]
MOST = -(-(512 - 1 + ROWS) // 16) + 1  # blocks that a sequence holds of the layers with a window
BLOCK = 16 * 2 * 256 * 2  # bytes of a layer: tokens, K and V, dimensions, f16


@pytest.fixture(scope="module")
def gemma():
    d = Daemon("--model", GEMMA, *OPTIONS)
    yield d
    d.wait_free()
    d.stop()


def test_the_plan_is_the_ledger_and_windows_take_what_they_can_hold(gemma):
    plan = json.loads(vramd("plan", GEMMA, "--json", *OPTIONS).stdout)
    assert plan["kv"]["groups"] == [{"blocks": SEQS * MOST, "block_bytes": 15 * BLOCK},
                                    {"blocks": SEQS * LENGTH // 16, "block_bytes": 3 * BLOCK}]
    m = gemma.memory()
    assert m["plan_bytes"] == plan["total_bytes"]
    for c in m["classes"]:
        planned = sum(t["bytes"] for t in plan["terms"] if t["class"] == c["class"])
        assert c["plan_bytes"] == planned, c
        if c["kind"] == "exact" and c["class"] in ("weights", "kv", "activations", "logits", "workspace", "tokenizer"):
            assert c["ledger_bytes"] == planned > 0, c


def test_short_of_memory_pools_are_in_proportion_and_the_plan_is_the_ledger():
    """Bytes for one and a half sequences: each pool gets one and a half of what a sequence needs of it."""
    one = MOST * 15 * BLOCK + LENGTH // 16 * 3 * BLOCK
    options = ["--max-model-len", str(LENGTH), "--max-num-seqs", "4", "--max-num-batched-tokens", str(ROWS)]
    least = json.loads(vramd("plan", GEMMA, "--json", *options).stdout)["smallest_budget_bytes"]
    options += ["--memory", str(least + one // 2)]
    plan = json.loads(vramd("plan", GEMMA, "--json", *options).stdout)
    windowed, full = (g["blocks"] for g in plan["kv"]["groups"])
    assert 1.45 <= full / (LENGTH // 16) <= 1.5 and 1.45 <= windowed / MOST <= 1.55
    assert 0 <= plan["budget_bytes"] - plan["total_bytes"] < 18 * BLOCK
    d = Daemon("--model", GEMMA, *options)
    try:
        body = {"prompt": list(range(1000, 1000 + LENGTH - 100)), "max_tokens": 100, "temperature": 0, "ignore_eos": True}
        assert d.http.post("/v1/completions", json=body).json()["usage"]["total_tokens"] == LENGTH
        m = d.memory()
        assert m["plan_bytes"] == plan["total_bytes"]
        kv = next(c for c in m["classes"] if c["class"] == "kv")
        assert kv["ledger_bytes"] == kv["plan_bytes"] == windowed * 15 * BLOCK + full * 3 * BLOCK
        d.wait_free()
    finally:
        d.stop()


def test_layers_with_a_window_release_what_no_later_token_sees(gemma):
    body = {"prompt": list(range(1000, 1800)), "max_tokens": 200, "temperature": 0, "ignore_eos": True, "return_memory": True}
    r = gemma.http.post("/v1/completions", json=body).json()
    assert r["usage"]["total_tokens"] == 1000
    full = -(-1000 // 16)
    assert full < r["memory"]["kv_peak_blocks"] <= full + MOST < 2 * full, r["memory"]
    gemma.wait_free()


def test_a_completion_is_the_same_alone_and_beside_another(gemma):
    body = {"prompt": "The sea was calm and the", "max_tokens": 24, "temperature": 0}
    alone = gemma.choice(**body)["text"]
    events = gemma.events("/v1/completions", {**body, "n": 2})
    for i in range(2):
        assert "".join(c["text"] for e in events for c in e["choices"] if c["index"] == i) == alone != ""


def test_generate_says_what_transformers_says():
    """Greedy, in float32: 64 tokens of the golden run."""
    golden = json.load(open(ROOT / "tests/golden/logits/gemma-3-270m-q4_k_m.json"))
    prompt = json.load(open(ROOT / "tests/golden/prompts.json"))["greedy"][0]["text"]
    r = vramd("generate", "--raw", "--model", GEMMA, "--max-tokens", "64", "--temperature", "0", "--max-model-len", "128",
              "--activation-dtype", "f32", "--kv-cache-dtype", "f32", prompt)
    assert r.returncode == 0, r.stderr
    assert golden["greedy"][0]["text"].startswith(r.stdout.rstrip("\n")) and len(r.stdout) > 100, r.stdout


def test_a_prompt_has_one_bos(gemma):
    for text in ("Hello", "<bos>Hello"):
        c = gemma.choice(text, max_tokens=1, return_token_ids=True)
        assert c["prompt_token_ids"] == [2, 9259], text
    assert gemma.text().count("is put before it anyway") == 1
    gemma.choice("<bos>Hello", max_tokens=1)
    assert gemma.text().count("is put before it anyway") == 1
    lp = gemma.choice("Hello<end_of_turn> you", echo=True, logprobs=0, max_tokens=0)["logprobs"]
    assert lp["text_offset"] == [0, 0, 5, 18]
    cut = gemma.choice("one two three four", truncate_prompt_tokens=3, max_tokens=1, return_token_ids=True)
    assert cut["prompt_token_ids"] == [2] + gemma.tokens("one two three four")[-2:]
