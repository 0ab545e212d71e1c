"""Models with recurrent layers, served: prefixes are found behind checkpoints of their states, the next turn of a conversation
behind the answer, and hits, forks, crowds, chunks and preemption change no token."""

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import gguf
import pytest

from harness import ROOT, Daemon, vramd
from test_load import crowd
from tiny_model import VOCABULARY

sys.path.insert(0, str(ROOT / "tests/golden"))
import make_hybrids  # noqa: E402
import make_mamba2  # noqa: E402

BLOCK, SEQS = 16, 4
OPTIONS = ["--backend", "cpu", "--max-model-len", "512", "--max-num-seqs", str(SEQS), "--max-num-batched-tokens", "48"]
FAMILIES = ["lfm2", "lfm2moe", "qwen35", "qwen35moe", "granitehybrid", "nemotron_h", "nemotron_h_moe"]
N_VOCAB = len(gguf.GGUFReader(VOCABULARY).fields["tokenizer.ggml.tokens"].contents())


def write(path, name):
    """A random model of the goldens with a vocabulary, and a context of more than 512 tokens."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(make_hybrids, "VOCAB", N_VOCAB)
        m.setattr(make_hybrids, "MAX", 1024)
        made = make_mamba2 if name in make_mamba2.FAMILIES else make_hybrids
        f = made.FAMILIES[name]
        make_hybrids.write_model(path, name, f, made.parts(f), 5, gguf.GGUFReader(VOCABULARY).fields.values())
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("recurrent") / f"{request.param}.gguf", request.param)


@pytest.fixture(scope="module")
def daemon(model):
    d = Daemon("--model", str(model), *OPTIONS)
    yield d
    d.stop()


def complete(d, prompt, n_tokens, **more):
    """Of each choice its tokens; and how many of the prompt were found."""
    body = {"prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True, "return_token_ids": True, **more}
    r = d.http.post("/v1/completions", json=body)
    assert r.status_code == 200, r.text
    doc = r.json()
    return [c["token_ids"] for c in doc["choices"]], doc["usage"]["prompt_tokens_details"]["cached_tokens"]


def tokens(n, seed):
    return random.Random(seed).choices(range(300, N_VOCAB), k=n)


def test_the_next_turn_computes_one_block_and_the_new_tokens(daemon):
    text = tokens(50, 1)
    for turn in range(4):
        (answer,), found = complete(daemon, text, 45)
        (again,), none = complete(daemon, text, 45, cache_salt=f"turn {turn}")
        assert none == 0 and answer == again
        if turn:
            # The last token of an answer is drawn and not computed.
            assert len(text) - found <= BLOCK + len(new) + 1  # noqa: F821
        new = tokens(20, 10 + turn)
        text = text + answer + new


def test_the_second_turn_of_a_chat_of_32768_tokens(tmp_path, monkeypatch):
    """As bench/bench_state.py has it: by usage and metrics."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    import bench_state
    subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", tmp_path / "m.gguf", "--shape", "qwen35_tiny", "--type", "Q8_0"], check=True)
    r = bench_state.chat(tmp_path / "m.gguf", SimpleNamespace(chat_tokens=32768))
    assert not list(bench_state.missed([r])), r
    assert (r["first"]["prompt"], r["first"]["cached"], r["second"]["state_misses"]) == (32768, 0, 0) and r["computed"] <= 73


def test_the_same_prompt_again_and_one_that_parts_from_it(daemon):
    head, salt = tokens(100, 2), {"cache_salt": "parts"}
    (first,), found = complete(daemon, head + tokens(30, 3), 10, **salt)
    (second,), again = complete(daemon, head + tokens(30, 3), 10, **salt)
    assert found == 0 and second == first and 130 - again <= 2 * BLOCK
    for seed in (4, 5):  # the second leaves a checkpoint where it parts; the third begins there
        prompt = head + tokens(30, seed)
        (answer,), found = complete(daemon, prompt, 10, **salt)
        assert answer == complete(daemon, prompt, 10, cache_salt=f"parts {seed}")[0][0]
    assert found == 96


def test_forks_crowds_chunks_and_preemption_change_no_token(daemon):
    jobs = [{"prompt": tokens(60 + 37 * i, i % 4), "temperature": i % 2, "seed": i, "n": 1 + i % 3} for i in range(9)]

    def ask(job):
        return complete(daemon, n_tokens=60, **job)[0]
    alone = [ask(j) for j in jobs]
    assert crowd(jobs, ask) == alone
    assert crowd(jobs, ask) == alone
    daemon.wait_free()


def test_states_take_what_was_planned(model, daemon):
    daemon.wait_free()
    rows = [line for line in daemon.http.get("/metrics").text.splitlines() if line.startswith("vramd_state_slots{")]
    assert sum(float(line.split()[-1]) for line in rows) == SEQS + 4 and len(rows) == 3
    plan = json.loads(vramd("plan", str(model), "--json", *OPTIONS, "--memory", "1GiB").stdout)
    (row,) = [c for c in daemon.memory()["classes"] if c["class"] == "state"]
    assert plan["runnable"] and row["ledger_bytes"] == row["plan_bytes"] == (SEQS + 4) * plan["state_bytes_per_sequence"]
    more = json.loads(vramd("plan", str(model), "--json", *OPTIONS, "--memory", "1GiB", "--state-checkpoints", "9").stdout)
    (term,) = [t for t in more["terms"] if t["class"] == "state"]
    assert term["bytes"] == (SEQS + 9) * plan["state_bytes_per_sequence"]
    none = json.loads(vramd("plan", str(model), "--json", *OPTIONS, "--memory", "1GiB", "--no-prefix-caching").stdout)
    (term,) = [t for t in none["terms"] if t["class"] == "state"]
    assert term["bytes"] == SEQS * plan["state_bytes_per_sequence"]


def test_a_small_cache_preempts_and_says_the_same(model, daemon):
    jobs = [tokens(70, 20 + i) for i in range(4)]
    alone = [complete(daemon, j, 150)[0] for j in jobs]
    d = Daemon("--model", str(model), *OPTIONS, "--kv-cache-tokens", "512")
    try:
        assert crowd(jobs, lambda j: complete(d, j, 150)[0]) == alone
        assert any(line.startswith("vllm:num_preemptions_total{") and not line.endswith(" 0") for line in d.http.get("/metrics").text.splitlines())
    finally:
        d.stop()


def test_a_tier_is_refused(model):
    r = vramd("plan", str(model), *OPTIONS, "--kv-host-bytes", "64MiB", check=False)
    assert r.returncode != 0 and "recurrent" in r.stderr and "kv_host_bytes" in r.stderr
