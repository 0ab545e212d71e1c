"""draft_model: the same answers as without it, memory to the byte, and errors that name both files. The draft model is the first layer
of the real model, which guesses badly and is verified all the same."""

import re
import threading
import time

import gguf
import pytest

from harness import MODEL, Daemon, refused
from test_load import counter

SMALL = ["--max-model-len", "512", "--max-num-seqs", "4", "--kv-cache-tokens", "768", "--no-log-requests"]
PROMPT = "One, two, three, four, five, six, seven, eight, nine, ten. " * 6
CASES = [{"prompt": PROMPT[i:], "max_tokens": 120, "ignore_eos": True, "temperature": t, "seed": i, "logprobs": 2} for i, t in enumerate((0, 0.8, 0, 1))]
LAYERS = 1


def cut(path, word=None):
    """word: in place of the last token."""
    r = gguf.GGUFReader(MODEL)
    w = gguf.GGUFWriter(path, "llama")
    for f in r.fields.values():
        if f.name.startswith("GGUF.") or f.name == "general.architecture":
            continue
        value = LAYERS if f.name == "llama.block_count" else f.contents()
        if word and f.name == "tokenizer.ggml.tokens":
            value[-1] = word
        w.add_key_value(f.name, value, f.types[0], f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None)
    for t in r.tensors:
        m = re.match(r"blk\.(\d+)\.", t.name)
        if not m or int(m[1]) < LAYERS:
            w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return str(path)


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    return cut(tmp_path_factory.mktemp("draft") / "draft.gguf")


def ask(d, cases=CASES):
    """Side by side: more than the KV cache holds, so that some are preempted; then one after the other."""
    out = [None] * len(cases)

    def one(i):
        out[i] = d.http.post("/v1/completions", json=cases[i]).json()["choices"]
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(cases))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out, [d.http.post("/v1/completions", json=c).json()["choices"] for c in cases]


def test_answers_are_the_same_and_memory_is_as_planned(draft):
    d = Daemon(*SMALL)
    want = ask(d)
    d.stop()
    for more in ([], ["--speculative=lookup"]):
        d = Daemon(*SMALL, "--draft-model", draft, *more)
        try:
            # Before 50 steps no times are known, so that what is guessed does not depend on the machine.
            d.http.post("/v1/completions", json={**CASES[0], "max_tokens": 30})
            assert counter(d, "vramd_speculative_draft_tokens_total") > 0
            for what in ("drafts", "draft_tokens", "accepted_tokens"):
                of_model, all_of_them = (counter(d, f"vramd_speculative_{x}{what}_total") for x in ("model_", ""))
                assert of_model == all_of_them if not more else of_model <= all_of_them
            assert ask(d) == want
            with d.http.stream("POST", "/v1/completions", json={**CASES[0], "stream": True}) as r:
                for _ in zip(range(4), r.iter_lines()):
                    pass
            d.wait_free()
            classes = {c["class"]: c for c in d.memory()["classes"]}
            for c in ("draft", "kv", "scheduler", "weights"):
                assert classes[c]["plan_bytes"] == classes[c]["ledger_bytes"] > 0
        finally:
            d.stop()


def test_the_draft_models_cache_moves_with_the_budget(draft):
    d, cases = Daemon(*SMALL, "--draft-model", draft), [{**c, "max_tokens": 24} for c in CASES[:2]]
    try:
        def bytes_of():
            m = d.memory()
            assert not m["resizing"]
            return {c["class"]: (c["plan_bytes"], c["ledger_bytes"]) for c in m["classes"] if c["class"] in ("draft", "kv")}
        full, m = bytes_of(), d.memory()
        want = ask(d, cases)
        for budget in (m["smallest_budget_bytes"], m["full_budget_bytes"]):
            moved = threading.Thread(target=ask, args=(d, cases))
            moved.start()
            assert d.http.put("/v1/memory", json={"budget_bytes": budget}).status_code in (200, 202)
            moved.join()
            while (now := d.memory())["resizing"] or now["budget_bytes"] != budget:
                time.sleep(0.01)
            assert ask(d, cases) == want
            now = bytes_of()
            assert all(plan == ledger for plan, ledger in now.values()) and (now == full) == (budget == m["full_budget_bytes"])
    finally:
        d.stop()


def test_a_file_that_is_not_there_is_named():
    r = refused("--model", MODEL, "--draft-model", "/nonexistent.gguf")
    assert "/nonexistent.gguf" in r.stderr


def test_another_vocabulary_is_refused_by_the_names_of_both_files(tmp_path):
    other = cut(tmp_path / "other.gguf", "a word of its own")
    r = refused("--model", MODEL, "--draft-model", other)
    assert f"draft_model = {other} has another vocabulary than {MODEL}: tokens differ" in r.stderr
