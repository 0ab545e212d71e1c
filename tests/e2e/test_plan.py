"""`vramd plan` for models and machines that are not here: whether it fits, what would help, what each option costs.

The configs are the members that count of the config.json on each model's page at huggingface.co, named beside it."""

import contextlib
import json
import os
import re

import jsonschema
import pytest

from harness import MODEL, ROOT, Daemon, vramd

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/plan.schema.json").read_text()))

# meta-llama/Llama-3.1-8B and -70B
LLAMA_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 131072,
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 128256}
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80}


@pytest.fixture
def plan(tmp_path):
    """plan(config, flags): the finished process, of the text or, with --json, of the object."""
    def run(config, *flags):
        file = tmp_path / "config.json"
        file.write_text(json.dumps(config))
        return vramd("plan", str(file), *flags)
    return run


def bytes_of(doc, cls):
    return sum(t["bytes"] for t in doc["terms"] if t["class"] == cls and not t.get("while_loading"))


def test_memory_may_be_more_than_this_machine_has(plan):
    r = plan(LLAMA_8B, "--memory", "400GiB")
    assert r.returncode == 0, r.stderr
    assert re.search(r"^for a machine with 400.0 GiB; this one has [\d.]+ GiB$", r.stdout, re.M)
    assert re.search(r"^fits: [\d.]+ GiB of 400.0 GiB; the KV cache holds 32.0 sequences of 8192 tokens$", r.stdout, re.M)
    r = vramd("serve", "--check", "--model", MODEL, "--memory", "400TiB")  # serving is for this machine
    assert r.returncode == 7 and "the machine has" in r.stderr


def test_any_card_by_its_memory_and_many_by_name(plan):
    doc = json.loads(plan(LLAMA_8B, "--device-memory", "16GiB", "--weights", "q4_0", "--json").stdout)
    assert doc["budget_bytes"] <= (16 << 30) - (512 << 20) and doc["verdict"]["fits"] and doc["device"] == "16.0 GiB"
    listed = vramd("plan", "--list-devices")
    assert listed.returncode == 0 and listed.stderr == ""
    for name in ("rtx3060", "rtx4060ti-16g", "rtx4070", "rtx4080", "rtx5090", "t4", "l4", "b200", "h20"):
        assert re.search(rf"^{name} +\S.* \d+\.\d GiB", listed.stdout, re.M), name
        assert plan(LLAMA_8B, "--weights", "q4_0", "--device", name).returncode == 0, name
    assert plan(LLAMA_8B, "--weights", "q4_0", "--device", "NVIDIA GeForce RTX 4090").returncode == 0
    assert "capability 8.0, and Tesla T4 has 7.5" in plan(LLAMA_8B, "--weights", "q4_0", "--device", "t4").stdout
    for name, says in (("mi300x", "is an AMD card; vramd's GPU engine is for NVIDIA's CUDA only"),
                       ("h100", "h100-80g, h100-nvl, h100-pcie"), ("abacus", "--list-devices")):
        r = plan(LLAMA_8B, "--device", name)
        assert r.returncode != 0 and says in r.stderr, r.stderr
    assert plan(LLAMA_8B, "--device", "h200", "--device-memory", "9GiB").returncode == 2


def test_what_does_not_fit_is_said_in_one_line_with_what_would(plan):
    r = plan(LLAMA_70B, "--device", "h100-80g", "--gpu-layers", "all")
    assert r.returncode == 7
    assert re.search(r"^does not fit: needs 55\.\d GiB more \(13\d\.\d GiB of 79\.1 GiB\); --weights Q8_0 would fit", r.stdout, re.M)
    assert "smaller type of weights" in r.stderr and "lower" not in r.stderr
    doc = json.loads(plan(LLAMA_70B, "--device", "h100-80g", "--gpu-layers", "all", "--json").stdout)
    fits_with = {f["change"]: f["sequences"] for f in doc["verdict"]["fits_with"]}
    assert 16 < fits_with["--weights Q4_0"] < 17 and 3 < fits_with["--device h200"] < 4
    assert doc["verdict"]["devices_split"] == "--tensor-parallel-size 2"
    assert doc["verdict"]["devices_together"] == 2 and doc["verdict"]["needs_more_bytes"] == \
        doc["smallest_budget_bytes"] - doc["budget_bytes"]
    for change in fits_with:  # each is true
        words = change.split()
        flags = words if words[0] == "--device" else [*words, "--device", "h100-80g"]
        assert plan(LLAMA_70B, *flags).returncode == 0, change
    doc = json.loads(plan(LLAMA_8B, "--max-model-len", "131072", "--device", "rtx4090", "--json").stdout)
    lengths = [f for f in doc["verdict"]["fits_with"] if f["change"].startswith("--max-model-len")]
    assert lengths and plan(LLAMA_8B, *lengths[0]["change"].split(), "--device", "rtx4090").returncode == 0


def test_prices_hold_where_the_memory_is_cut(plan):
    r = plan(LLAMA_8B, "--details", "--device", "rtx4090")
    prices = {m[1].strip(): int(m[2].replace(",", "")) for m in re.finditer(r"^  (\S.*?)  +([+-][\d,]+) ", r.stdout, re.M)}
    assert 1024 * 131072 <= prices["1,024 tokens more of KV cache"] < 1024 * 131072 + 65536
    assert prices["max_num_batched_tokens doubled"] > 1 << 20 and prices["max_num_seqs doubled (same KV cache)"] > 1 << 20
    r = plan(LLAMA_8B, "--details", "--backend", "cpu", "--memory", "20GiB")
    prices = {m[1].strip(): int(m[2].replace(",", "")) for m in re.finditer(r"^  (\S.*?)  +([+-][\d,]+) ", r.stdout, re.M)}
    tokens = int(re.search(r"KV cache: .*, ([\d,]+) tokens: ", r.stdout)[1].replace(",", ""))
    # but for the scheduler's list of blocks that a step may move, fewer of larger ones
    assert 0 <= tokens * 131072 - prices["kv_cache_dtype = f32"] < 4096


@pytest.mark.parametrize("changed,text", [
    (["--max-num-seqs", "64"], "max_num_seqs doubled (same KV cache)"),
    (["--max-num-batched-tokens", "1024"], "max_num_batched_tokens doubled"),
    (["--max-connections", "2048"], "max_connections doubled"), (["--kv-cache-dtype", "f32"], "kv_cache_dtype = f32")])
def test_a_price_is_the_difference_of_two_plans(plan, changed, text):
    base = ["--backend", "cpu", "--memory", "200GiB", "--kv-cache-tokens", "16384", "--threads", "8"]
    rows = re.findall(r"^  (\S.*?)  +([+-][\d,]+) ", plan(LLAMA_8B, "--details", *base).stdout, re.M)
    a, b = (json.loads(plan(LLAMA_8B, *base, *flags, "--json").stdout)["total_bytes"] for flags in ([], changed))
    assert int(dict(rows)[text].replace(",", "")) == b - a


@pytest.mark.parametrize("flags,n,why", [
    (["--backend", "cpu", "--threads", "1"], 128, "1 threads"),
    (["--backend", "cpu", "--threads", "5"], 320, "5 threads"),
    (["--backend", "cpu", "--threads", "64"], 512, "64 threads"),
    (["--backend", "cpu", "--threads", "2", "--max-num-seqs", "100"], 200, "2 threads"),
    (["--backend", "cpu", "--threads", "2", "--max-num-seqs", "600"], 600, "2 threads"),
    (["--device", "h100-80g", "--threads", "1"], 512, None),
    (["--backend", "cpu", "--threads", "2", "--max-num-batched-tokens", "300"], 300, None)])
def test_the_tokens_of_a_step_go_by_the_machine(plan, flags, n, why):
    out = plan(LLAMA_8B, "--details", "--weights", "q4_0", *flags).stdout
    assert re.findall(r"device cpu, (.*)", out) == ([f"{why}: steps of up to {n} tokens"] if why else [])
    assert f"values of {n} rows" in out
    both = [json.loads(plan(LLAMA_8B, "--weights", "q4_0", "--memory", "60GiB", "--json", *flags, *more).stdout)
            for more in ([], ["--max-num-batched-tokens", str(n)])]
    assert both[0]["total_bytes"] == both[1]["total_bytes"]


def recommended(doc):
    return {r["goal"]: r for r in doc["recommended"]}


@pytest.mark.parametrize("where", [["--backend", "cpu", "--memory", "40GiB"], ["--device", "rtx4090"], ["--device-memory", "12GiB"]])
def test_what_to_do_is_a_file_of_options_with_that_plan(plan, tmp_path, where):
    flags = ["--weights", "q4_0", *where]
    doc = json.loads(plan(LLAMA_8B, *flags, "--json").stdout)
    assert set(recommended(doc)) == {"latency", "throughput", "context"}
    for goal, r in recommended(doc).items():
        conf = tmp_path / f"{goal}.conf"
        conf.write_text(r["conf"])
        own = where if where[0] != "--backend" else where[:2]
        again = json.loads(plan(LLAMA_8B, "--weights", "q4_0", *own, "--config", str(conf), "--json").stdout)
        assert max(again["total_bytes"], again["load_peak_bytes"]) == r["memory_bytes"] <= doc["budget_bytes"]
        assert again["verdict"]["fits"] and again["verdict"]["sequences"] >= r["max_num_seqs"]
        assert bytes_of(again, "kv") == r["kv_bytes"] and again["kv"]["tokens"] == r["max_num_seqs"] * r["max_model_len"]
        host = again.get("host", again)
        most = max(host["total_bytes"], host["load_peak_bytes"])
        mib = (most + most // 50 + (64 << 20) + (1 << 20) - 1 >> 20) + (1024 if "host" in again else 0)
        kubernetes = r["limits"]["kubernetes"]
        assert r["limits"]["MemoryMax"] == f"{mib}M" and kubernetes["requests"]["memory"] == f"{mib}Mi" == kubernetes["limits"]["memory"]
        assert ("nvidia.com/gpu" in kubernetes["limits"]) == ("host" in again)


def test_the_service_takes_what_is_pasted(tmp_path):
    doc = json.loads(vramd("plan", MODEL, "--memory", "1GiB", "--memory-max", "2GiB", "--json").stdout)
    for goal, r in recommended(doc).items():
        conf = tmp_path / f"{goal}.conf"
        conf.write_text(r["conf"])
        checked = vramd("serve", "--check", "--config", str(conf))
        assert checked.returncode == 0, checked.stderr
        assert f"# fits: {r['memory_bytes']} bytes of " in checked.stdout and f"max_num_seqs = {r['max_num_seqs']}\n" in checked.stdout


def test_the_choice_is_the_best_that_fits(plan):
    base = ["--weights", "q4_0", "--device", "rtx4090", "--kv-cache-dtype", "bf16"]  # of one type
    best = recommended(json.loads(plan(LLAMA_8B, *base, "--json").stdout))
    longest = best["context"]["max_model_len"]
    fits = lambda n, length: json.loads(plan(LLAMA_8B, *base, "--max-num-seqs", str(n), "--max-model-len", str(length),
                                             "--max-num-batched-tokens", "256", "--json").stdout)["verdict"]
    assert fits(1, longest)["fits"] and (longest == 131072 or not fits(1, longest + 256)["fits"])
    most = best["throughput"]["max_num_seqs"]
    assert fits(most, 8192)["sequences"] >= most and fits(2 * most, 8192)["sequences"] < 2 * most
    asked = best["throughput"]
    given = recommended(json.loads(plan(LLAMA_8B, *base, "--max-model-len", "4096", "--max-num-seqs", "3", "--json").stdout))
    for r in given.values():
        assert (r["max_model_len"], r["max_num_seqs"], r["type_k"]) == (4096, 3, "BF16"), "what was given stays"
    assert asked["max_model_len"] == 8192


def test_the_estimate_is_bytes_read_over_bandwidth(plan):
    flags = ["--weights", "q4_0", "--device", "rtx4090", "--kv-cache-dtype", "bf16", "--json"]
    doc = json.loads(plan(LLAMA_8B, *flags).stdout)
    embedding = 128256 * 4096 * 18 // 32
    assert doc["bandwidth"] == {"bytes_per_s": 1008000000000, "source": "the card's datasheet"}
    for r in doc["recommended"]:
        tokens, n = r["estimate"]["tokens_per_sequence"], r["max_num_seqs"]
        per_token = r["kv_bytes"] / (n * r["max_model_len"])
        read = lambda n: bytes_of(doc, "weights") - embedding + n * tokens * per_token
        assert tokens == r["max_model_len"] / 2
        assert r["estimate"]["tokens_per_s_of_one"] == pytest.approx(1008e9 / read(1), rel=2e-3)
        assert r["estimate"]["tokens_per_s_of_all"] == pytest.approx(n * 1008e9 / read(n), rel=2e-3)
    faster = json.loads(plan(LLAMA_8B, *flags, "--bandwidth", "2.016TB/s").stdout)
    assert recommended(faster)["latency"]["estimate"]["tokens_per_s_of_one"] == pytest.approx(
        2 * recommended(doc)["latency"]["estimate"]["tokens_per_s_of_one"], rel=1e-3)
    unknown = json.loads(plan(LLAMA_8B, "--weights", "q4_0", "--device-memory", "24GiB", "--json").stdout)
    assert unknown["bandwidth"]["bytes_per_s"] == 0 and "estimate" not in recommended(unknown)["latency"]
    for flags, says in ((["--bandwidth", "fast"], "300GB/s"), (["--for", "speed"], "latency, throughput, context")):
        r = plan(LLAMA_8B, *flags)
        assert r.returncode == 2 and says in r.stderr


def test_lengths_of_requests_give_the_concurrency(plan, tmp_path):
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("prompt,output\n160,320\n160,320\n20000,10\n")
    flags = ["--weights", "q4_0", "--backend", "cpu", "--memory", "40GiB", "--lengths", str(lengths)]
    doc = json.loads(plan(LLAMA_8B, *flags, "--kv-cache-tokens", "32000", "--json").stdout)["lengths"]
    # 160 tokens grow to 480 of them: 10 to 30 blocks of 16, 20 on the mean
    assert (doc["requests"], doc["too_long"], doc["longest"]) == (3, 1, 20010)
    assert doc["at_once_mean"] == pytest.approx(100, abs=0.1) and 80 < doc["at_once_99_percent"] < 97
    best = recommended(json.loads(plan(LLAMA_8B, *flags, "--json").stdout))["throughput"]
    assert best["estimate"]["tokens_per_sequence"] == pytest.approx(320, abs=1) and best["max_num_seqs"] == 64
    assert best["kv_cache_tokens"] < 64 * 8192 / 4
    lengths.write_text("rubbish\n")
    r = plan(LLAMA_8B, *flags)
    assert r.returncode != 0 and "prompt,output" in r.stderr
    trace = ROOT.parent / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"
    if trace.exists():
        text = plan(LLAMA_8B, *flags[:-1], str(trace)).stdout
        assert "19,366 requests of 1155 + 211 tokens" in text and "longer than max_model_len: 1\n" in text


def test_the_grid_has_the_bytes_of_each_plan(plan):
    where = ["--weights", "q4_0", "--device", "rtx4090"]
    doc = json.loads(plan(LLAMA_8B, *where, "--grid", "--json").stdout)
    assert len(doc["grid"]) == 36 and {c["max_model_len"] for c in doc["grid"]} == {2 ** i for i in range(12, 18)}
    for cell in doc["grid"]:
        if cell["max_model_len"] in (8192, 32768) and cell["max_num_seqs"] in (8, 32):
            n, length = cell["max_num_seqs"], cell["max_model_len"]
            one = plan(LLAMA_8B, "--weights", "q4_0", "--device-memory", "512GiB", "--max-num-seqs", str(n), "--max-model-len",
                       str(length), "--kv-cache-tokens", str(n * length), "--json")
            card = next(t["bytes"] for t in doc["terms"] if t["class"] == "context")
            other = json.loads(one.stdout)
            unknown = next(t["bytes"] for t in other["terms"] if t["class"] == "context")
            assert cell["memory_bytes"] == other["total_bytes"] - unknown + card
            assert cell["fits"] == (cell["memory_bytes"] <= doc["budget_bytes"])


def test_which_types_of_weights_fit(plan):
    doc = json.loads(plan(LLAMA_70B, "--backend", "cpu", "--memory", "400GiB", "--fit", "48GiB", "--json").stdout)["fit"]
    rows = {r["type"]: r for r in doc["weights"]}
    assert list(rows) == ["bf16", "q8_0", "q6_K", "q5_K_M", "q4_K_M", "q4_0"] and doc["budget_bytes"] == 48 << 30
    assert [t for t, r in rows.items() if r["fits"]] == ["q4_K_M", "q4_0"] and rows["q8_0"]["kl"] == 0.0014
    for t, r in rows.items():
        own = plan(LLAMA_70B, "--backend", "cpu", "--memory", "48GiB", "--weights", t, "--json")
        own = json.loads(own.stdout)
        assert bytes_of(own, "weights") == r["weight_bytes"] and own["verdict"]["fits"] == r["fits"]
        assert own["smallest_budget_bytes"] == r["smallest_budget_bytes"]
        assert not r["fits"] or own["verdict"]["sequences"] == r["sequences"]
    real = json.loads(vramd("plan", MODEL, "--fit", "1GiB", "--json").stdout)
    assert all(r["fits"] for r in real["fit"]["weights"]) and len(real["fit"]["weights"]) == 6
    r = plan(LLAMA_8B, "--fit", "much")
    assert r.returncode == 2 and "24GiB" in r.stderr


def test_the_object_is_that_of_the_schema(plan, tmp_path):
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("prompt,output\n160,320\n")
    SCHEMA.check_schema(SCHEMA.schema)
    seen = set()
    for config, flags in (
            (LLAMA_8B, ["--weights", "q4_0", "--device", "rtx4090", "--grid", "--fit", "8GiB", "--lengths", str(lengths)]),
            (LLAMA_8B, ["--backend", "cpu", "--memory", "40GiB", "--formula", "rule-of-thumb"]), (LLAMA_70B, ["--device", "h100-80g"]),
            (LLAMA_70B, ["--device", "h100-80g", "--tensor-parallel-size", "2"]),
            (MIXTRAL, ["--device", "b200"]), (NEMOTRON_H, ["--device", "b200"]), (GEMMA4, ["--backend", "cpu"]), (GEMMA_27B, ["--backend", "cpu", "--memory", "99GiB"])):
        doc = json.loads(plan(config, *flags, "--json").stdout)
        SCHEMA.validate(doc)
        assert doc.get("in_file_bytes") == (96 * 7 * 32 * 2 if config is GEMMA4 else None)
        seen |= set(doc)
    seen.add("not_loaded_bytes")  # of a file: test_families.py
    assert seen == set(SCHEMA.schema["properties"]), "every member is seen, and none more"
    doc["recommended"][0]["limit"] = 1
    assert not SCHEMA.is_valid(doc)


@contextlib.contextmanager
def serving(*options):
    d = Daemon(*options, "--max-model-len", "512", "--max-num-seqs", "4")
    try:
        yield d
    finally:
        d.stop()


def test_the_served_model_is_planned_with_other_options():
    with serving("--memory", "600MiB") as d:
        before = d.memory()
        ask = lambda **body: d.http.post("/v1/plan", json=body)
        same = ask().json()
        SCHEMA.validate(same)
        cli = lambda *flags: json.loads(vramd("plan", MODEL, "--json", "--max-model-len", "512", *flags).stdout)
        own = cli("--max-num-seqs", "4", "--memory", "600MiB")
        for member in ("terms", "kv", "verdict", "total_bytes", "budget_bytes", "model"):
            assert same[member] == own[member], member
        planned = {c["class"]: c["plan_bytes"] for c in before["classes"]}
        assert planned["kv"] == bytes_of(same, "kv") and planned["scheduler"] == bytes_of(same, "scheduler")
        other = ask(max_num_seqs=8, kv_cache_dtype="bf16", memory="1GiB", grid=True, fit=1 << 30, bandwidth="80GB/s",
                    rule_of_thumb=True).json()
        SCHEMA.validate(other)
        own = cli("--max-num-seqs", "8", "--kv-cache-dtype", "bf16", "--memory", "1GiB", "--grid", "--fit", "1GiB", "--bandwidth", "80GB/s",
                  "--formula", "rule-of-thumb")
        for member in ("terms", "kv", "grid", "fit", "bandwidth", "rule_of_thumb"):
            assert other[member] == own[member], member
        assert all(r["max_num_seqs"] == 8 and r["type_k"] == "BF16" and "model =" not in r["conf"] for r in other["recommended"])
        small = ask(memory="100MiB").json()
        assert not small["verdict"]["fits"] and small["verdict"]["needs_more_bytes"] > 0
        for body, param in (({"max_num_seqs": "many"}, "max_num_seqs"), ({"host": "0.0.0.0"}, "host"), ({"memory": -1}, "memory"),
                            ({"model_file": "/etc/passwd"}, "model_file"), ({"api_keys_file": "x"}, "api_keys_file"),
                            ({"max_model_len": 1 << 24}, "max_model_len"), ({"bandwidth": 3}, "bandwidth"), ({"grid": 3}, "grid"),
                            ({"kv_cache_dtype": "a" * 500}, "kv_cache_dtype"), ({"threads": [1]}, "threads"), ({"seqs": 1}, "seqs"), ({"": 1}, None),
                            ({"model": 7}, "model"), ({"max_num_seqs": 64, "max_num_batched_tokens": 8}, "max_num_batched_tokens")):
            r = ask(**body)
            assert r.status_code == 400 and r.json()["error"]["param"] == param, (body, r.text)
        assert d.http.post("/v1/plan", json=[1]).status_code == 400 and d.http.get("/v1/plan").status_code == 405
        assert "/v1/plan" in d.http.get("/openapi.json").json()["paths"]
        assert d.memory()["kv"] == before["kv"] and d.memory()["classes"][0] == before["classes"][0]


def test_a_plan_needs_a_key_where_keys_are_used(tmp_path):
    keys = tmp_path / "keys"
    keys.touch(0o600)
    made = vramd("key", "alice")
    keys.write_text(made.stdout)
    key = re.search(r"vk-[0-9a-f]{64}", made.stderr)[0]
    with serving("--api-keys-file", str(keys)) as d:
        for bearer, code in (("vk-" + "0" * 64, 401), (key, 200)):
            assert d.http.post("/v1/plan", json={}, headers={"Authorization": "Bearer " + bearer}).status_code == code


EXAMPLES = re.findall(r"^    \$ vramd plan (config\.json .*)\n((?:    .*\n)+)", (ROOT / "docs/planning.md").read_text(), re.M)


@pytest.mark.parametrize("flags,lines", EXAMPLES, ids=[flags for flags, _ in EXAMPLES])
def test_the_page_shows_what_is_printed(tmp_path, flags, lines):
    lines = [line[4:] for line in lines.splitlines()]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B if "70,553,706,496" in lines[0] else LLAMA_8B))
    printed = vramd("plan", *flags.split(), cwd=tmp_path).stdout.splitlines()
    assert [line for line in lines if line not in (*printed, "...")] == []


def test_a_plan_is_a_page_that_ends_with_what_to_paste(plan):
    for where in (["--device", "rtx4090"], ["--backend", "cpu", "--memory", "32GiB"]):
        lines = plan(LLAMA_8B, "--weights", "q4_0", *where).stdout.splitlines()
        assert len(lines) <= 50 and any(line.startswith("fits: ") for line in lines[:3]), len(lines)
        assert lines[-1].startswith("# Kubernetes: resources: {requests: ") and lines[-2].startswith("# systemd:    MemoryMax=")
    assert "max_num_seqs = 1\n" in plan(LLAMA_8B, "--weights", "q4_0", "--for", "latency", "--device-memory", "12GiB").stdout
    assert "what to do" not in plan(LLAMA_70B, "--device", "rtx4090", "--gpu-layers", "all").stdout


def test_every_row_has_a_size_that_people_read(plan):
    rows = re.findall(r"^(\w+) +(?:exact|calibrated|assumed) +([\d,]+) +([\d.]+) (\w+)  ", plan(LLAMA_8B, "--details").stdout, re.M)
    unit = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    assert len(rows) > 15
    for cls, grouped, size, word in rows:
        assert abs(int(grouped.replace(",", "")) - float(size) * unit[word]) <= 0.051 * unit[word], cls


def test_the_rule_of_thumb_is_set_out_as_people_know_it(plan):
    flags = ["--device", "h100-80g", "--max-num-seqs", "4", "--max-model-len", "4096", "--formula", "rule-of-thumb"]
    rule = json.loads(plan(LLAMA_8B, *flags, "--json").stdout)["rule_of_thumb"]
    units = 4 * 4096 * 4096 * 32
    assert (rule["batch"], rule["sequence"], rule["hidden"], rule["layers"]) == (4, 4096, 4096, 32)
    assert abs(rule["weights_bytes"] - 2 * 8030261248) < 4e6 and rule["kv_bytes"] == 4 * 4096 * 131072
    assert rule["activations_bytes"] == [10 * units, 20 * units]
    assert rule["total_bytes"] == [int((rule["weights_bytes"] + rule["kv_bytes"] + k * units) * f / 100)
                                   for k, f in ((10, 110), (20, 120))]
    text = plan(LLAMA_8B, *flags).stdout
    for line in ("weights", "KV cache", "activations", "overhead", "total"):
        assert re.search(rf"^  {line} ", text, re.M), line
    assert "K x batch 4 x sequence 4096 x hidden 4096 x layers 32, K = 10 to 20" in text
    assert "K x batch x sequence x hidden x layers" in vramd("plan", "--help").stdout


# google/gemma-3-270m and gemma-3-27b-it, mistralai/Mixtral-8x7B-v0.1, google/gemma-2-9b, Qwen/Qwen3-30B-A3B
GEMMA_270M = {"model_type": "gemma3_text", "head_dim": 256, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
              "max_position_embeddings": 32768, "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 512,
              "torch_dtype": "bfloat16", "vocab_size": 262144}
GEMMA_27B = {"model_type": "gemma3", "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152}, "text_config": {
    "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "model_type": "gemma3_text", "num_attention_heads": 32,
    "num_hidden_layers": 62, "num_key_value_heads": 16, "query_pre_attn_scalar": 168,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}}
MIXTRAL = {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
           "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_experts_per_tok": 2,
           "num_local_experts": 8, "sliding_window": None, "rope_theta": 1e6, "torch_dtype": "bfloat16", "vocab_size": 32000}
GEMMA4 = json.loads((ROOT / "tests/golden/families/gemma4/config.json").read_text())
LFM2 = {"model_type": "lfm2", "hidden_size": 2048, "intermediate_size": 12288, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 128000, "conv_L_cache": 3, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "vocab_size": 65536}
NEMOTRON_H = {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-", "mamba_num_heads": 128, "mamba_head_dim": 64,
              "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4, "hidden_size": 4096, "intermediate_size": 21504,
              "num_hidden_layers": 5, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
              "max_position_embeddings": 8192}
GEMMA_2 = {"model_type": "gemma2", "head_dim": 256, "hidden_size": 3584, "intermediate_size": 14336, "sliding_window": 4096,
           "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 42, "num_key_value_heads": 8,
           "vocab_size": 256000}
QWEN3_30B = {"model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "mlp_only_layers": [],
             "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "moe_intermediate_size": 768,
             "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
             "num_key_value_heads": 4, "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936}




CPU, CARD = ["--backend", "cpu", "--memory", "400GiB"], ["--device", "b200"]


@pytest.mark.parametrize("config,params,per_token", [(MIXTRAL, 46702792704, 131072), (QWEN3_30B, 30532122624, 98304)])
def test_mixtures_of_experts_run_on_the_cpu(plan, config, params, per_token):
    doc = json.loads(plan(config, *CPU, "--json").stdout)
    assert doc["can_be_served"] and doc["runnable"] and doc["model"]["n_params"] == params
    assert 0 <= bytes_of(doc, "weights") - 2 * params < 2 * 4 * params / 1000
    assert doc["kv"]["bytes_per_token"] == per_token
    assert any(t["what"].startswith("routing of") for t in doc["terms"])


@pytest.mark.parametrize("config,params,per_token", [(MIXTRAL, 46702792704, 131072), (QWEN3_30B, 30532122624, 98304)])
def test_mixtures_of_experts_run_on_a_card(plan, config, params, per_token):
    r = plan(config, *CARD)
    assert r.returncode == 0, r.stderr
    assert "not runnable" not in r.stdout
    doc = json.loads(plan(config, *CARD, "--json").stdout)
    assert doc["can_be_served"] and doc["runnable"] and doc["model"]["n_params"] == params
    assert 0 <= bytes_of(doc, "weights") - 2 * params < 2 * 4 * params / 1000
    assert doc["kv"]["bytes_per_token"] == per_token


@pytest.mark.parametrize("quant,size,name", [
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}, 5727854592, "AWQ, 4 bits"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}, 5735587840, "GPTQ, 4 bits"),
    ({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, 9081202432, "FP8"),
    ({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
        "input_activations": {"dynamic": True}, "targets": ["Linear"],
        "weights": {"num_bits": 8, "strategy": "channel", "type": "float"}}}}, 9083953152, "FP8")])
def test_quantised_weights_are_planned_as_they_are_stored(plan, quant, size, name):
    doc = json.loads(plan({**LLAMA_8B, "quantization_config": quant}, "--device", "rtx4090", "--json").stdout)
    assert bytes_of(doc, "weights") == size and not doc["can_be_served"] and f"refuses them ({name}" in doc["why_not"]
    r = plan({**LLAMA_8B, "quantization_config": quant}, "--backend", "cpu", "--memory", "32GiB")
    assert r.returncode == 0 and f"an estimate: a config.json has no weights ({name}" in r.stdout and "cannot serve" not in r.stdout
    doc = json.loads(plan({**LLAMA_8B, "quantization_config": quant}, "--weights", "q4_0", "--device", "rtx4090", "--json").stdout)
    assert doc["can_be_served"]
    r = plan({**LLAMA_8B, "quantization_config": {"quant_method": "bitsandbytes"}})
    assert r.returncode == 6 and "bitsandbytes" in r.stderr and "BF16" not in r.stdout


def test_weights_have_the_names_that_people_use(plan):
    for name in ("Q4_K_M", "Q8_0", "FP8", "AWQ", "GPTQ-Int4", "int4", "bf16", "FP16"):
        assert plan(LLAMA_8B, "--weights", name, "--device", "rtx4090").returncode == 0, name
    r = plan(LLAMA_8B, "--weights", "fp3")
    assert r.returncode == 2 and "Q4_K_M" in r.stderr and "AWQ" in r.stderr
    doc = json.loads(plan(LLAMA_8B, "--weights", "Q4_K_M", "--backend", "cpu", "--json").stdout)
    assert doc["can_be_served"]


def test_the_other_terms_of_an_estimate_are_those_of_a_real_plan(plan):
    """An estimate of arenas is within 1 % of a card's memory of what the engine would allocate."""
    real, estimate = (json.loads(plan(LLAMA_8B, "--weights", w, "--device", "rtx4090", "--kv-cache-tokens", "8192", "--json").stdout)
                      for w in ("q4_0", "AWQ"))
    assert real["can_be_served"] and not estimate["can_be_served"]
    rest = [doc["total_bytes"] - bytes_of(doc, "weights") for doc in (real, estimate)]
    assert abs(rest[0] - rest[1]) < 240 << 20 and bytes_of(real, "kv") == bytes_of(estimate, "kv")


def test_what_the_cpu_runs_and_a_card_does_not_is_marked_on_the_card(plan):
    doc = json.loads(plan(GEMMA_2, "--backend", "cpu", "--memory", "400GiB", "--json").stdout)
    assert doc["runnable"] and doc["can_be_served"] and doc["model"]["n_params"] == 9241705984
    assert len(doc["kv"]["groups"]) == 2 and doc["kv"]["bytes_per_token"] == 344064
    assert json.loads(plan(GEMMA_2, "--device", "b200", "--json").stdout)["runnable"]
    assert json.loads(plan(LFM2, "--device", "b200", "--json").stdout)["runnable"]
    assert json.loads(plan(NEMOTRON_H, "--backend", "cpu", "--memory", "400GiB", "--json").stdout)["runnable"]
    r = plan(NEMOTRON_H, "--device", "b200")
    assert r.returncode == 0 and re.search(r"^planned, not runnable yet: the \w+ engine lacks norm_groups, ungated$", r.stdout, re.M)
    doc = json.loads(plan(NEMOTRON_H, "--device", "b200", "--json").stdout)
    assert doc["runnable"] is False and doc["missing"] == ["norm_groups", "ungated"] and not doc["can_be_served"]


def test_gemma_3_of_4b_to_27b_is_planned_by_its_text_config(plan):
    doc = json.loads(plan(GEMMA_27B, "--backend", "cpu", "--weights", "q4_0", "--memory", "25GiB", "--max-num-batched-tokens", "512", "--json").stdout)
    assert doc["model"]["n_params"] == 27009346304 and doc["text_part_only"] and doc["can_be_served"]
    windowed, full = doc["kv"]["groups"]
    # 512 and 97 blocks of a sequence of 8,192 tokens
    assert doc["verdict"]["sequences"] > 4 and abs(windowed["blocks"] / 97 - full["blocks"] / 512) < 0.1
    assert doc["budget_bytes"] - doc["total_bytes"] < 20 << 20


@pytest.mark.skipif(not os.environ.get("VRAMD_TEST_GEMMA"), reason="VRAMD_TEST_GEMMA names no file")
def test_a_mixture_has_the_types_of_the_real_file(plan):
    real = json.loads(vramd("plan", os.environ["VRAMD_TEST_GEMMA"], "--json").stdout)
    doc = json.loads(plan(GEMMA_270M, "--weights", "Q4_K_M", "--backend", "cpu", "--json").stdout)
    assert {t["what"]: t["bytes"] for t in doc["terms"] if t["class"] == "weights"} == \
        {t["what"]: t["bytes"] for t in real["terms"] if t["class"] == "weights"}


# ---- layers on the host ----

LAYER_8B = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)  # bytes of its matrices in 16 bits


def layers_of(plan, n, *more):
    return json.loads(plan(LLAMA_8B, "--device", "rtx4090", "--max-num-seqs", "4", "-ngl", str(n), "--json", *more).stdout)


def test_layers_on_the_host_are_planned_to_the_byte_on_both_sides(plan):
    whole = layers_of(plan, "all")
    assert "offload" not in whole and bytes_of(whole["host"], "weights") == 0
    for n in (0, 1, 20, 29):
        doc = layers_of(plan, n)
        SCHEMA.validate(doc)
        hosts = 32 - n
        assert bytes_of(doc["host"], "weights") == hosts * LAYER_8B == doc["offload"]["step_bytes"]
        assert bytes_of(doc, "weights") == bytes_of(whole, "weights") - hosts * LAYER_8B
        slots = [t for t in doc["terms"] if "slots for" in t["what"]]
        assert len(slots) == 1 and slots[0]["bytes"] == 2 * LAYER_8B and slots[0]["kind"] == "exact"
        o = doc["offload"]
        assert (o["gpu_layers"], o["n_layers"], o["copies"], o["slots"], o["automatic"]) == (n, 32, hosts, 2, False)
        e = o["estimate"]
        assert e["link_bytes_per_s"] == 0.8 * 32e9
        assert abs(e["tokens_per_s_of_one"] - e["link_bytes_per_s"] / (hosts * LAYER_8B)) < 0.01
        assert doc["total_bytes"] <= doc["budget_bytes"]
    for n in (30, 31, 32, 33, 1000):  # two slots are two layers: fewer on the host save nothing
        doc = layers_of(plan, n)
        assert "offload" not in doc and doc["total_bytes"] == whole["total_bytes"]
    assert layers_of(plan, 0, "--link", "50GB/s")["offload"]["estimate"]["link_bytes_per_s"] == 50e9


def test_layers_that_the_cpu_computes_have_no_slots_and_are_predicted_by_the_host_s_memory(plan):
    whole = layers_of(plan, "all")
    for n in (0, 1, 20, 31):
        doc = layers_of(plan, n, "--offload", "compute", "--host-bandwidth", "100GB/s")
        SCHEMA.validate(doc)
        hosts = 32 - n
        assert bytes_of(doc, "weights") == bytes_of(whole, "weights") - hosts * LAYER_8B - (hosts - 1) * 4096 * 4 * 2 - 4096 * 4  # and norms
        assert not [t for t in doc["terms"] if "slots for" in t["what"]]
        assert bytes_of(doc["host"], "weights") >= hosts * LAYER_8B == doc["offload"]["computed_bytes"]
        o = doc["offload"]
        assert (o["mode"], o["gpu_layers"], o["copies"], o["step_bytes"]) == ("compute", n, 0, 0)
        assert o["estimate"]["host_bytes_per_s"] == 100e9 and 0 < o["estimate"]["tokens_per_s_of_one"] < 100e9 / (hosts * LAYER_8B)
    r = plan(LLAMA_8B, "--device", "rtx4070", "--max-num-seqs", "4", "--offload", "compute")
    assert re.search(r"^\d+ of 32 layers on the device \(gpu_layers = auto\): the CPU computes the others' matrices, [\d.]+ GiB for a token", r.stdout, re.M)
    assert "at 41 GB/s (assumed: 2 channels of DDR4; --host-bandwidth states it)" in r.stdout
    for rate, mode in (("200GB/s", "compute"), ("5GB/s", "copy")):  # the link has 25.6 GB/s
        doc = layers_of(plan, 10, "--offload", "auto", "--host-bandwidth", rate)
        assert doc["offload"]["mode"] == mode
        assert layers_of(plan, 10, "--offload", mode)["terms"] == doc["terms"]
    assert layers_of(plan, 10, "--offload", "auto", "--host-bandwidth", "5GB/s", "--link", "1GB/s")["offload"]["mode"] == "compute"


def test_a_bad_number_of_layers_is_refused_with_the_range(plan):
    for word in ("-1", "some", "1.5", "12x", ""):
        r = plan(LLAMA_8B, "--device", "rtx4090", f"--gpu-layers={word}")
        assert r.returncode == 2, (word, r.stderr)
        assert "no number from 0 to 32, nor auto or all" in r.stderr, r.stderr
    r = plan(LLAMA_8B, "--device", "rtx4090", "--n-gpu-layers", "99")
    assert r.returncode == 0 and "gpu_layers = 99: all 32 layers of the model are on the device" in r.stderr
    assert "65535" in plan(LLAMA_8B, "--n-cpu-moe", "70000").stderr
    r = plan(LLAMA_8B, "-ngl", "99", "--memory", "400GiB")  # no device
    assert r.returncode == 0 and "the CPU computes all layers" in r.stderr
    r = plan(LLAMA_8B, "--device", "rtx4090", "-ngl", "4", "--tensor-parallel-size", "2")
    assert r.returncode == 6 and "ranks" in r.stderr


def test_auto_keeps_as_many_layers_on_the_device_as_fit(plan):
    card = ("--device", "rtx4070", "--max-num-seqs", "4")
    doc = json.loads(plan(LLAMA_8B, *card, "--json").stdout)
    SCHEMA.validate(doc)
    n = doc["offload"]["gpu_layers"]
    assert doc["fits"] and doc["offload"]["automatic"] and 0 < n < 29 and doc["total_bytes"] <= doc["budget_bytes"]
    assert doc["verdict"]["fits"] and doc["verdict"]["fits_with"]
    assert plan(LLAMA_8B, *card, "-ngl", str(n)).returncode == 0
    assert plan(LLAMA_8B, *card, "-ngl", str(n + 1)).returncode == 7
    r = plan(LLAMA_8B, *card)
    assert r.returncode == 0
    assert re.search(rf"^fits with {n} of 32 layers on the device: .*; with all of them: does not fit: needs ", r.stdout, re.M), r.stdout
    assert re.search(rf"^{n} of 32 layers on the device \(gpu_layers = auto\): each step copies [\d.]+ GiB", r.stdout, re.M)
    assert re.search(r"^predicted, at most: [\d.]+ tokens/s of one sequence at 26 GB/s \(80 % of the card's link\); [\d.]+ with all", r.stdout, re.M)
    assert re.search(r"^gpu_layers = \d+$", r.stdout, re.M)  # what to paste: for 4 sequences
    fewer = json.loads(plan(LLAMA_8B, *card, "--kv-cache-tokens", "32768", "--json").stdout)
    assert fewer["offload"]["gpu_layers"] < n and fewer["kv"]["tokens"] >= 32768  # the cache comes first
    r = plan(LLAMA_8B, "--device-memory", "1GiB")
    assert r.returncode == 7 and "does not fit" in r.stdout
