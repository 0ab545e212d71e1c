"""The daemon with the CUDA engine on the CPU (build/vramd-cuda-shim.so) against the CPU engine in float32: the same
tiny models, served by both. tools/run-cuda-tests.sh builds the plugin and names it; otherwise these are skipped."""

import concurrent.futures
import itertools
import json
import os
import re
import signal
import time

import pytest

from harness import Daemon, vramd
from test_load import counter, crowd
from published import FP8, write as publish
from tiny_model import WIDE, write

PLUGIN = os.environ.get("VRAMD_TEST_CUDA_PLUGIN", "")
CUDA = ["--backend", "cuda", "--cuda-plugin", PLUGIN]
SIZES = ["--max-model-len", "256", "--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--no-log-requests"]
LONG = [*CUDA, "--max-model-len", "1024", "--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--no-log-requests"]
GRANULE = 2 << 20  # of the device: what its pools of KV blocks are made of
EXACT = ("weights", "activations", "logits", "workspace", "kv")
# By how much a log-probability may differ. f16 activations keep 11 bits; packed weights meet int8 activations
# in steps of few rows (the worst seen: 0.006 and 0.18). Greedy tokens must be equal unless the CPU's two likeliest are nearer than twice that.
TOLERANCE = {"F16": 0.02, "Q4_0": 0.35, "IQ4_NL": 0.35, "Q4_K": 0.35, "Q6_K": 0.35}
PROMPTS = ["the garden of", "int main(void) {", "Привет", "a b c d e f g h i j k l m n o p", "winter is", "x = 1", "日本", "no"]

pytestmark = pytest.mark.skipif(not PLUGIN, reason="make test-cuda runs these")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    where, made = tmp_path_factory.mktemp("tiny"), {}

    def of(name):
        if name not in made:
            made[name] = str(where / f"{name}.gguf")
            write(made[name], name, **(WIDE if name.endswith("_K") else {}))
        return made[name]
    return of


@pytest.fixture(scope="module")
def f16(model):
    d = Daemon("--model", model("F16"), *CUDA, *SIZES)
    yield d
    d.wait_free()
    d.stop()


def ask(d, prompt, n=16, **more):
    r = d.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True, **more})
    assert r.status_code == 200, r.text
    return r.json()["choices"][0]


def compare(want, got, tolerance):
    """Tokens until a near-tie sends the two another way; returns how many could be compared."""
    want, got = want["logprobs"], got["logprobs"]
    assert len(want["tokens"]) == len(got["tokens"])
    for i, (a, b) in enumerate(zip(want["tokens"], got["tokens"])):
        top, other = want["top_logprobs"][i], got["top_logprobs"][i]
        both = {t for t in set(top) & set(other) if "\ufffd" not in t}  # several tokens look like that
        for t in both:
            assert abs(top[t] - other[t]) <= tolerance, (i, t, top[t], other[t])
        if a != b:
            assert top[a] - top.get(b, -1e9) <= 2 * tolerance, (i, top, other)
            return i
    return len(want["tokens"])


@pytest.mark.parametrize("name", list(TOLERANCE))
def test_it_says_what_the_cpu_engine_says(model, name):
    cpu = Daemon("--model", model(name), "--backend", "cpu", "--activation-dtype", "f32", "--kv-cache-dtype", "f32", *SIZES)
    cuda = Daemon("--model", model(name), *CUDA, *SIZES)
    try:
        want = [ask(cpu, p, logprobs=5) for p in PROMPTS]
        alone = [ask(cuda, p, logprobs=5) for p in PROMPTS]
        together = crowd(PROMPTS, lambda p: ask(cuda, p, logprobs=5))
        same = [compare(a, b, TOLERANCE[name]) for got in (alone, together) for a, b in zip(want, got)]
        assert sum(same) >= 0.7 * 16 * len(same), same  # or the near-ties would hide everything
    finally:
        cpu.stop()
        cuda.wait_free()
        cuda.stop()


@pytest.mark.parametrize("activations", ["auto", "f16"])
@pytest.mark.parametrize("kind", FP8)
def test_published_fp8_says_what_the_cpu_engine_says(tmp_path, kind, activations):
    """A scale for a matrix, an output or a block; what meets 16 bits is rounded to them. Auto means bf16, which keeps 8 bits."""
    write(tmp_path / "source.gguf", "F32", width=128, ff=192)
    publish(tmp_path / "source.gguf", tmp_path / "Tiny", None, "F32", packed=kind)
    folder, options = str(tmp_path / "Tiny"), [*CUDA, "--activation-dtype", activations, *SIZES]
    cpu = Daemon("--model", folder, "--backend", "cpu", "--activation-dtype", "f32", "--kv-cache-dtype", "f32", *SIZES)
    cuda = Daemon("--model", folder, *options)
    try:
        tolerance = 0.02 if activations == "f16" else 0.2
        want = [ask(cpu, p, logprobs=5) for p in PROMPTS]
        alone = [ask(cuda, p, logprobs=5) for p in PROMPTS]
        together = crowd(PROMPTS, lambda p: ask(cuda, p, logprobs=5))
        same = [compare(a, b, tolerance) for got in (alone, together) for a, b in zip(want, got)]
        assert sum(same) >= 0.7 * 16 * len(same), same
        cuda.wait_free()
        held = {c["class"]: c["ledger_bytes"] for c in cuda.memory()["device"]["classes"]}
        plan = json.loads(vramd("plan", "--json", folder, *options).stdout)
        for name in ("weights", "activations", "workspace", "kv"):
            assert held[name] == sum(t["bytes"] for t in plan["terms"] if t["class"] == name) > 0, name
    finally:
        cpu.stop()
        cuda.stop()


@pytest.mark.parametrize("types", [["--kv-cache-dtype", "int4"], ["--cache-type-k", "int8", "--cache-type-v", "int4"]])
def test_a_cache_of_4_bits_says_what_the_cpu_engine_says_with_it(model, types):
    """Beyond the tail's 64 tokens, alone and in batches, and after a hit in the prefix cache; the plan is the ledger
    to the byte."""
    cpu = Daemon("--model", model("F16"), "--backend", "cpu", "--activation-dtype", "f32", *types, *SIZES)
    cuda = Daemon("--model", model("F16"), *CUDA, *types, *SIZES)
    texts = [[5 + (7 * i + j) % 90 for j in range(100)] for i in range(4)]
    try:
        want = [ask(cpu, t, logprobs=5) for t in texts]
        alone = [ask(cuda, t, logprobs=5) for t in texts]
        together = crowd(texts, lambda t: ask(cuda, t, logprobs=5))
        same = [compare(a, b, 0.05) for got in (alone, together) for a, b in zip(want, got)]
        assert sum(same) >= 0.7 * 16 * len(same), same
        r = cuda.http.post("/v1/completions", json={"prompt": texts[0], "max_tokens": 4, "temperature": 0}).json()
        assert r["usage"]["prompt_tokens_details"]["cached_tokens"] >= 80, r["usage"]
        cuda.wait_free()
        m = cuda.memory()
        plan = json.loads(vramd("plan", "--json", model("F16"), *CUDA, *types, *SIZES).stdout)
        kv = next(c for c in m["device"]["classes"] if c["class"] == "kv")
        assert kv["ledger_bytes"] == sum(t["bytes"] for t in plan["terms"] if t["class"] == "kv") > 0
    finally:
        cpu.stop()
        cuda.stop()


@pytest.mark.parametrize("kv", ["f16", "int4"])
def test_prefixes_on_disk_come_back_with_the_same_bits(tmp_path, kv):
    file = str(tmp_path / "long.gguf")
    write(file, "F16", context=1024)
    options = ["--model", file, *CUDA, "--max-model-len", "1024", "--max-num-seqs", "2", "--kv-cache-dtype", kv, "--batch-invariant"]
    prompt = [5 + (7 * j) % 90 for j in range(700)]
    said = []
    for disk in ([], ["--kv-disk", str(tmp_path / "disk")], ["--kv-disk", str(tmp_path / "disk")]):
        d = Daemon(*options, *disk)
        try:
            a = d.http.post("/v1/completions", timeout=120, json={"prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 3, "ignore_eos": True}).json()
            said.append(a["choices"][0])
            cached = a["usage"]["prompt_tokens_details"]["cached_tokens"]
            d.wait_free()
        finally:
            d.stop()
    assert said[0] == said[1] == said[2]
    assert cached == 640  # five chunks of 128 tokens, from the files of the daemon before


def test_it_names_itself_and_streams_what_it_says_at_once(f16):
    m = f16.memory()
    assert m["device"]["name"] == "cuda:0"
    whole = ask(f16, "the garden of", 24)
    events = f16.events("/v1/completions", {"prompt": "the garden of", "max_tokens": 24, "temperature": 0, "ignore_eos": True})
    assert "".join(e["choices"][0]["text"] for e in events) == whole["text"]
    hot = dict(temperature=0.8, seed=7)
    assert ask(f16, "winter", **hot)["text"] == ask(f16, "winter", **hot)["text"]
    many = f16.complete("winter", n=3, temperature=1, seed=5, ignore_eos=True).json()["choices"]
    chat = f16.client.chat.completions.create(model=f16.client.models.list().data[0].id, max_tokens=8, temperature=0,
                                              messages=[{"role": "user", "content": "a colour"}])
    assert chat.choices[0].message.role == "assistant" and chat.usage.completion_tokens == 8
    assert len(many) == 3 and f16.complete(["a", "b"]).status_code == 200


def test_allowed_tokens_and_bad_words_hold_on_the_device(f16):
    def stand_alone(x, y):  # no three of them are tokenised as anything but themselves
        words = ["".join(w) for w in itertools.product((x, y), repeat=3)]
        return all(len(f16.tokens(w)) == 3 and len(f16.tokens(" " + w)) == 4 for w in words)
    x, y = next(p for p in itertools.combinations("qzjxkvwQZJXK", 2) if stand_alone(*p))
    rule = dict(allowed_token_ids=f16.tokens(x) + f16.tokens(y), temperature=1, seed=3, logprobs=5)
    free = ask(f16, "a", 24, **rule)
    assert set(free["logprobs"]["tokens"]) <= {x, y} and all(len(t) == 2 for t in free["logprobs"]["top_logprobs"])
    word = free["text"][3:6]  # the request without it runs in lockstep, others beside it do not
    made = crowd(range(8), lambda i: ask(f16, "a", 24, **rule, bad_words=[word] * (i % 2)))
    for i, c in enumerate(made):
        assert (word in c["text"]) == (i % 2 == 0) and set(c["text"]) <= {x, y} and len(c["text"]) == 24
    r = f16.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 9, "allowed_token_ids": f16.tokens(x),
                                               "bad_words": [3 * x]})
    assert r.status_code == 400 and "after 2 tokens" in r.json()["error"]["message"], r.text
    f16.wait_free()


def test_whoever_leaves_frees_the_blocks(f16):
    def leave(i):
        with f16.http.stream("POST", "/v1/completions", json={
                "prompt": f"count {i}", "max_tokens": 200, "ignore_eos": True, "stream": True}) as r:
            lines = r.iter_lines()
            for _ in range(1 + i % 3):
                next(lines)
    before = counter(f16, "vramd_generated_tokens_total")
    crowd(range(12), leave)
    f16.wait_free()
    assert f16.memory()["sequences"] == []
    assert counter(f16, "vramd_generated_tokens_total") - before < 12 * 200
    assert ask(f16, "still here", 4)["text"]


@pytest.mark.parametrize("kv", ["f16", "int4"])
def test_preempted_requests_say_what_they_say_alone(model, kv):
    """With batch_invariant, so that a recomputed row has the same bits and every token is compared."""
    d = Daemon("--model", model("F16"), *CUDA, *SIZES, "--kv-cache-tokens", "256", "--batch-invariant", "--kv-cache-dtype", kv)
    jobs = [{"prompt": p, "n": 48, "temperature": (i % 2) * 0.7, "seed": 100 + i} for i, p in enumerate(PROMPTS)]
    try:
        alone = [ask(d, **j)["text"] for j in jobs]
        assert counter(d, "vramd_preemptions_total") == 0
        assert crowd(jobs, lambda j: ask(d, **j)["text"]) == alone
        assert counter(d, "vramd_preemptions_total") > 0
        d.wait_free()
    finally:
        d.stop()


def granules(n):
    """Pools of KV blocks take whole granules of the device."""
    return -(-n // GRANULE) * GRANULE


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    file = str(tmp_path_factory.mktemp("long") / "long.gguf")
    write(file, "F16", layers=4, heads=1, kv_heads=1, context=1024)  # 1 KiB of KV cache in f16 a token
    return file


def check_device(d):
    """Plan, ledger and driver agree on the KV cache, to the byte."""
    m = d.memory()
    kv = next(c for c in m["device"]["classes"] if c["class"] == "kv")
    assert kv["plan_bytes"] == kv["ledger_bytes"], kv
    assert m["device"]["plan_bytes"] <= m["device"]["budget_bytes"], m["device"]
    if not m["resizing"]:
        assert kv["ledger_bytes"] == granules(m["kv"]["blocks"] * m["kv"]["block_tokens"] * m["kv"]["bytes_per_token"])
    return m, kv["ledger_bytes"], m["device"]["driver"]["used_bytes"]


def settle(d):
    end = time.monotonic() + 60
    while d.memory()["resizing"]:
        check_device(d)
        assert time.monotonic() < end
        time.sleep(0.02)
    return check_device(d)


def put(d, budget):
    r = d.http.put("/v1/memory", json={"budget_bytes": budget})
    assert r.status_code in (200, 202), r.text
    return r.json()


def test_no_answer_changes_while_the_budget_of_the_device_moves(long_model, tmp_path):
    conf = tmp_path / "vramd.conf"
    options = ["--model", long_model, *LONG, "--batch-invariant"]
    jobs = [[5 + (7 * i + j) % 90 for j in range(120)] for i in range(6)]
    plain = Daemon(*options)
    expected = crowd(jobs, lambda j: ask(plain, j, 24)["text"])
    m, pool, _ = check_device(plain)
    full, small = m["device"]["budget_bytes"], m["smallest_budget_bytes"]
    plain.stop()
    assert pool == 8 << 20 and small < full
    conf.write_text(f"[memory]\nmemory = {full}\n")
    d = Daemon(*options, "--config", str(conf))
    try:
        _, before, used = check_device(d)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answers = pool.submit(crowd, jobs, lambda j: ask(d, j, 24)["text"])
            for budget in (small, full, small + (full - small) // 2, small):
                put(d, budget)
                settle(d)
            assert answers.result() == expected
        m, now, less = settle(d)
        assert now == GRANULE and used - less == before - now, (used, less, before, now)
        assert m["device"]["budget_bytes"] == m["target_bytes"] == small
        assert put(d, full)["budget_bytes"] == full
        assert settle(d)[1:] == (before, used)
        assert counter(d, "vramd_memory_resizes_total") == 5
        r = d.http.put("/v1/memory", json={"budget_bytes": small - 1})
        assert r.status_code == 409, r.text
        conf.write_text(f"[memory]\nmemory = {small}\n")
        d.process.send_signal(signal.SIGHUP)
        d.wait_log(r"(the new budget is in force(.*\n)*.*){6}")
        assert settle(d)[1] == GRANULE
        assert crowd(jobs, lambda j: ask(d, j, 24)["text"]) == expected
    finally:
        d.stop()


def test_memory_max_lets_the_device_grow_and_idleness_gives_back(long_model):
    options = ["--model", long_model, *LONG]
    plan = json.loads(vramd("plan", "--json", *options[1:]).stdout)
    least, full = plan["smallest_budget_bytes"], plan["budget_bytes"]
    d = Daemon(*options, "--memory", str(least), "--memory-max", str(full), "--idle-release", "1")
    try:
        assert check_device(d)[1] == GRANULE
        assert ask(d, "x", 4)["text"]
        put(d, full)
        assert settle(d)[1] == 8 << 20
        assert ask(d, "x", 4)["text"]
        end = time.monotonic() + 30
        while settle(d)[1] != GRANULE:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert d.memory()["idle"]["released"]
    finally:
        d.stop()


def test_a_device_whose_pool_is_fixed_refuses_to_move_it(long_model, monkeypatch):
    monkeypatch.setenv("CUSHIM_VMM", "0")
    d = Daemon("--model", long_model, *LONG)
    try:
        m, _, _ = check_device(d)
        r = d.http.put("/v1/memory", json={"budget_bytes": m["smallest_budget_bytes"]})
        assert r.status_code == 409 and r.json()["error"]["param"] == "budget_bytes", r.text
        assert ask(d, "x", 4)["text"]
        check_device(d)
    finally:
        assert "no virtual memory management" in d.stop()


@pytest.mark.parametrize("kv", ["f16"])
def test_preempted_requests_come_back_from_host_memory(tmp_path, kv):
    """With the same bits (batch_invariant: of every token), and the plan is the ledger with the pinned buffers. The two
    that stay grow over all blocks of the third."""
    file = str(tmp_path / "one.gguf")
    write(file, "F16", layers=1, heads=1, kv_heads=1)
    options = ["--model", file, *LONG, "--max-model-len", "512", "--max-num-seqs", "3", "--batch-invariant", "--kv-cache-dtype", kv]
    jobs = [[5 + (7 * i + 3 * j) % 90 for j in range(140)] for i in range(3)]
    plain = Daemon(*options)
    expected = crowd(jobs, lambda j: ask(plain, j, 220)["text"])
    plain.stop()
    few = [*options, "--kv-cache-tokens", "736", "--kv-host-bytes", "8MiB"]
    d = Daemon(*few)
    try:
        assert crowd(jobs, lambda j: ask(d, j, 220)["text"]) == expected
        assert counter(d, "vramd_preemptions_total") > 0
        assert counter(d, "vramd_kv_tier_hits_total") > 0
        assert counter(d, "vramd_kv_tier_load_errors_total") == counter(d, "vramd_kv_tier_store_errors_total") == 0
        check_device(d)
        m = d.memory()
        plan = json.loads(vramd("plan", "--json", *few[1:]).stdout)
        terms = [t for t in plan["host"]["terms"] if t["class"] == "workspace"]
        assert any("pinned" in t["what"] and "host memory" in t["what"] for t in terms), terms
        row = next(c for c in m["classes"] if c["class"] == "workspace")
        assert row["ledger_bytes"] == row["plan_bytes"] == sum(t["bytes"] for t in terms) > 6 << 20
    finally:
        assert "more slowly" not in d.stop()


def test_plan_and_ledger_of_the_device_agree_to_the_byte(model, f16):
    def by_class(account, key):
        return {c["class"]: c[key] for c in account["classes"]}
    ask(f16, "the garden of")
    f16.wait_free()
    m = f16.memory()
    device, host = m["device"], m
    plan = json.loads(vramd("plan", "--json", model("F16"), *CUDA, *SIZES).stdout)
    assert device["budget_bytes"] == plan["budget_bytes"] and device["plan_bytes"] == plan["total_bytes"]
    for name in EXACT:
        planned = sum(t["bytes"] for t in plan["terms"] if t["class"] == name)
        assert by_class(device, "ledger_bytes")[name] == by_class(device, "peak_bytes")[name] == planned > 0, name
    kv = m["kv"]
    assert by_class(device, "ledger_bytes")["kv"] == granules(kv["blocks"] * kv["block_tokens"] * kv["bytes_per_token"])
    assert kv["blocks"] == plan["kv"]["blocks"]
    assert "kv" not in {c["class"] for c in host["classes"] if c["ledger_bytes"]}
    assert device["driver"]["total_bytes"] == 4 << 30
    assert device["driver"]["used_bytes"] >= sum(by_class(device, "ledger_bytes")[c] for c in EXACT)
    crowd(range(8), lambda i: ask(f16, [5 + i] * 60, 20, logprobs=1))
    assert f16.memory()["device"]["driver"] == device["driver"]  # nothing was allocated while serving
    assert "cuda:0" in f16.http.get("/v1/memory", headers={"Accept": "text/plain"}).text


# ---- layers in the host's memory ----


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory):
    file = str(tmp_path_factory.mktemp("deep") / "deep.gguf")
    write(file, "F16", layers=6)
    return file


LAYER = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64)  # bytes of a layer's matrices
SMALL = ["--max-model-len", "128", "--max-num-seqs", "8", "--max-num-batched-tokens", "16", "--no-log-requests"]


def device_plan(*options):
    return json.loads(vramd("plan", "--json", *options).stdout)


@pytest.mark.parametrize("layers", [0, 2])
def test_layers_of_the_host_say_what_the_device_says_and_the_plan_is_the_ledger(deep_model, layers):
    """Compared bit by bit (batch_invariant): steps with layers of the host run without graphs."""
    options = ["--model", deep_model, *CUDA, *SMALL, "--batch-invariant"]
    whole, part = Daemon(*options), Daemon(*options, "-ngl", str(layers))
    jobs = [{"prompt": p, "n": 8, "logprobs": 3, "temperature": (i % 2) * 0.7, "seed": i} for i, p in enumerate(PROMPTS)]
    try:
        want = [ask(whole, **j) for j in jobs]
        assert [ask(part, **j) for j in jobs] == want
        assert crowd(jobs, lambda j: ask(part, **j)) == want
        m, plan = part.memory(), device_plan(*options[1:], "-ngl", str(layers))
        planned_is_held(m, plan, "weights", "workspace", "activations")
        assert next(c["ledger_bytes"] for c in m["classes"] if c["class"] == "weights") == (6 - layers) * LAYER
        assert m["device"]["driver"]["used_bytes"] <= m["device"]["budget_bytes"]
        step, copied = counter(part, "vramd_offload_step_bytes"), counter(part, "vramd_offload_bytes_total")
        assert step == (6 - layers) * LAYER and copied > 50 * step and copied % step == 0
        assert counter(part, "vramd_offload_stall_seconds_total") >= 0
        assert "vramd_offload" not in whole.http.get("/metrics").text
    finally:
        whole.stop()
        text = part.stop()
    assert f"the matrices of {6 - layers} layers" in text and "steps run without CUDA graphs" in text


def planned_is_held(memory, plan, *classes):
    for side, planned in ((memory["device"], plan), (memory, plan["host"])):
        assert side["plan_bytes"] <= side["budget_bytes"] and side["ledger_bytes"] <= side["plan_bytes"]
        for name in classes:
            held = next((c["ledger_bytes"] for c in side["classes"] if c["class"] == name), 0)
            assert held == sum(t["bytes"] for t in planned["terms"] if t["class"] == name), name


@pytest.mark.parametrize("name,layers", [("F16", 0), ("F16", 2), ("Q4_0", 3)])
def test_layers_that_the_cpu_computes_say_what_the_cpu_engine_says(tmp_path, name, layers):
    file = str(tmp_path / "deep.gguf")
    write(file, name, layers=6)
    options = ["--model", file, *CUDA, *SMALL, "-ngl", str(layers), "--offload", "compute", "--threads", "2"]
    cpu = Daemon("--model", file, "--backend", "cpu", "--activation-dtype", "f32", "--kv-cache-dtype", "f32", *SMALL)
    part = Daemon(*options)
    try:
        want = [ask(cpu, p, logprobs=5) for p in PROMPTS]
        for got in ([ask(part, p, logprobs=5) for p in PROMPTS], crowd(PROMPTS, lambda p: ask(part, p, logprobs=5))):
            assert sum(compare(a, b, TOLERANCE[name]) for a, b in zip(want, got)) > 30
        m, plan = part.memory(), device_plan(*options[1:])
        planned_is_held(m, plan, "weights", "workspace", "activations")
        o = plan["offload"]
        assert (o["mode"], o["gpu_layers"], o["copies"], o["slots"], o["step_bytes"]) == ("compute", layers, 0, 0, 0)
        assert not [t for t in plan["terms"] if "slots for" in t["what"]]
        assert counter(part, "vramd_offload_computed_bytes") >= o["computed_bytes"] > 0
        assert counter(part, "vramd_offload_compute_seconds_total") > 0
        assert "vramd_offload_step_bytes" not in part.http.get("/metrics").text
    finally:
        cpu.stop()
        text = part.stop()
    assert "where the CPU computes them" in text and "steps run without CUDA graphs" in text


def test_auto_puts_on_the_host_what_the_device_s_budget_does_not_hold(deep_model):
    options = ["--model", deep_model, *CUDA, *SMALL]
    least = device_plan(*options[1:], "-ngl", "all")["smallest_budget_bytes"]
    d = Daemon(*options, "--memory", str(least - 2 * LAYER))
    try:
        assert ask(d, "x", 8)["text"]
        m = d.memory()
        assert m["device"]["plan_bytes"] <= m["device"]["budget_bytes"] == least - 2 * LAYER
        assert counter(d, "vramd_offload_step_bytes") >= 3 * LAYER  # and no graphs
    finally:
        d.stop()
    code, line = refused(*options, "--memory", str(least - 2 * LAYER), "-ngl", "all")
    assert code == 7 and "memory" in line
    r = vramd("serve", "--check", *options, "-ngl", "99")
    assert r.returncode == 0 and "gpu_layers = 99: all 6 layers of the model are on the device" in r.stderr, r.stderr


def refused(*options, **environment):
    r = vramd("serve", "--port", "0", *options, env={**os.environ, **environment})
    said = [x for x in r.stderr.splitlines() if x.startswith("vramd serve: ")]
    assert r.returncode and "READY" not in r.stderr and len(said) == 1, r.stderr
    return r.returncode, said[0]


def test_what_cannot_be_had_is_refused_in_one_line(model, tmp_path):
    file = ["--model", model("F16"), *SIZES]
    code, line = refused(*file, "--backend", "cuda", "--cuda-plugin", str(tmp_path / "none.so"))
    assert code == 3 and "none.so" in line and "no such file" in line
    (tmp_path / "text.so").write_text("not an object")
    code, line = refused(*file, "--backend", "cuda", "--cuda-plugin", str(tmp_path / "text.so"))
    assert code == 6 and "text.so" in line
    code, line = refused(*file, *CUDA, CUSHIM_DEVICES="0")
    assert code == 11 and "no device" in line
    code, line = refused(*file, *CUDA, CUSHIM_DRIVER="0")
    assert code == 11 and "driver" in line
    code, line = refused(*file, *CUDA, CUSHIM_DRIVER="12020")
    assert code == 11 and "too old" in line and "12.2" in line
    code, line = refused(*file, *CUDA, CUSHIM_CAPABILITY="75")
    assert code == 6 and "7.5" in line
    code, line = refused(*file, *CUDA, "--cuda-device", "3")
    assert code == 11 and "cuda_device = 3" in line
    code, line = refused(*file, *CUDA, "--memory", "1MiB")
    assert code == 7 and "memory" in line


def test_a_device_that_is_too_small_or_gives_less_than_it_says_is_told(model):
    code, line = refused("--model", model("F16"), *SIZES, *CUDA, CUSHIM_FAIL_ALLOC="1")
    assert code == 8 and "device cannot give" in line


@pytest.mark.parametrize("name", ["F16", "Q4_0"])
def test_auto_takes_the_device_if_there_is_one_and_the_cpu_otherwise(model, name, monkeypatch):
    """Without a plugin, without a device, with one."""
    for options, devices, want in ((["--cuda-plugin", "/nowhere/x.so"], "1", None), (CUDA[2:], "0", None), (CUDA[2:], "1", "cuda:0")):
        monkeypatch.setenv("CUSHIM_DEVICES", devices)
        d = Daemon("--model", model(name), "--backend", "auto", *options, *SIZES)
        try:
            m = d.memory()
            assert (m["device"]["name"] if "device" in m else None) == want
            assert ask(d, "x", 2)["text"]
        finally:
            text = d.stop()
        if devices == "0":
            assert re.search(r"backend = auto: the CPU's, since .*no device", text), text


def test_what_the_device_lacks_is_named_and_auto_takes_the_cpu(tmp_path):
    """An operation without a kernel there: an order of inputs."""
    file = str(tmp_path / "ordered.gguf")
    write(file, "F16", ordered=True)
    code, line = refused("--model", file, *CUDA, *SIZES)
    assert code == 6 and "the cuda engine lacks permute" in line, line
    d = Daemon("--model", file, "--backend", "auto", *CUDA[2:], *SIZES)
    try:
        assert "device" not in d.memory() and ask(d, "x", 2)["text"]
    finally:
        text = d.stop()
    assert re.search(r"backend = auto: the CPU's, since .*the cuda engine lacks permute", text), text
