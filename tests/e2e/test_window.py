"""A model whose layers see a window only, made of the real one: bytes as planned, and one answer whatever is released."""

import json

import gguf
import numpy as np
import pytest

from harness import MODEL, Daemon, vramd
from requantise import rewrite
from test_load import ask, crowd

WINDOW, ROWS, SEQS = 64, 48, 4
OPTIONS = ["--max-model-len", "512", "--max-num-seqs", str(SEQS), "--max-num-batched-tokens", str(ROWS)]
MOST = -(-(WINDOW - 1 + ROWS) // 16) + 1
TEXT = "The old harbour of the town was full of ships that had come from every part of the sea. " * 8


def make(path, more=()):
    rewrite(MODEL, path, lambda t, layer: (np.array(t.data), t.tensor_type), 4, more)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    where = tmp_path_factory.mktemp("window")
    key = ("llama.attention.sliding_window", WINDOW, gguf.GGUFValueType.UINT32)
    return make(where / "full.gguf"), make(where / "windowed.gguf", [key])


@pytest.fixture(scope="module")
def windowed(files):
    d = Daemon("--model", str(files[1]), *OPTIONS)
    yield d
    d.stop()


def test_the_plan_takes_what_windows_can_hold_and_the_ledger_agrees(files, windowed):
    full, own = (json.loads(vramd("plan", str(f), "--json", *OPTIONS, "--memory", "1GiB").stdout) for f in files)
    assert full["kv"]["groups"][0]["blocks"] == SEQS * 512 // 16
    assert own["kv"]["groups"] == [{"blocks": SEQS * MOST, "block_bytes": full["kv"]["groups"][0]["block_bytes"]}]
    assert own["kv"]["tokens"] == full["kv"]["tokens"]
    m = windowed.memory()
    kv = next(c for c in m["classes"] if c["class"] == "kv")
    assert m["kv"]["blocks"] == SEQS * MOST
    assert kv["ledger_bytes"] == kv["plan_bytes"] == SEQS * MOST * own["kv"]["groups"][0]["block_bytes"]


def test_within_the_window_it_says_what_the_full_model_says_and_beyond_it_holds_the_window(files, windowed):
    d = Daemon("--model", str(files[0]), *OPTIONS)
    short = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    try:
        assert ask(windowed, short) == ask(d, short)
    finally:
        d.stop()
    r = windowed.http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 200, "temperature": 0, "ignore_eos": True,
                                                    "return_memory": True}).json()
    assert r["usage"]["total_tokens"] > 350 and 0 < r["memory"]["kv_peak_blocks"] <= MOST
    windowed.wait_free()


def test_hits_forks_crowds_chunks_and_preemption_change_no_text(files, windowed):
    jobs = [{"prompt": TEXT[i * 3 % 60:] + f"Number {i % 4}:", "max_tokens": 60, "temperature": i % 2, "seed": i,
             "ignore_eos": True, "n": 1 + i % 3} for i in range(10)]
    alone = [ask(windowed, b) for b in jobs]
    assert crowd(jobs, lambda b: ask(windowed, b)) == alone
    windowed.wait_free()
    first, again = (windowed.http.post("/v1/completions", json=jobs[0]).json() for _ in range(2))
    assert first["choices"][0]["text"] == alone[0][0]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 and again["choices"][0]["text"] == alone[0][0]
    d = Daemon("--model", str(files[1]), "--max-model-len", "512", "--max-num-batched-tokens", "512", "--max-num-seqs", "4",
               "--prefix-caching=false", "--kv-cache-tokens", "512")
    try:
        assert crowd(jobs, lambda b: ask(d, b)) == alone
        d.wait_free()
    finally:
        d.stop()
