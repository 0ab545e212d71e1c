"""`vramd plan` for models and machines that are not here: whether it fits, what would help, what each option costs.

The configs are the members that count of the config.json on each model's page at huggingface.co, named beside it."""

import json
import re

import pytest

from harness import MODEL, vramd

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
    r = plan(LLAMA_70B, "--device", "h100-80g")
    assert r.returncode == 7
    assert re.search(r"^does not fit: needs 55\.\d GiB more \(13\d\.\d GiB of 79\.1 GiB\); --weights Q8_0 would fit", r.stdout, re.M)
    assert "smaller type of weights" in r.stderr and "lower" not in r.stderr
    doc = json.loads(plan(LLAMA_70B, "--device", "h100-80g", "--json").stdout)
    fits_with = {f["change"]: f["sequences"] for f in doc["verdict"]["fits_with"]}
    assert 16 < fits_with["--weights Q4_0"] < 17 and 3 < fits_with["--device h200"] < 4
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
    r = plan(LLAMA_8B, "--device", "rtx4090")
    prices = {m[1].strip(): int(m[2].replace(",", "")) for m in re.finditer(r"^  (\S.*?)  +([+-][\d,]+) ", r.stdout, re.M)}
    assert 1024 * 131072 <= prices["1,024 tokens more of KV cache"] < 1024 * 131072 + 65536
    assert prices["max_num_batched_tokens doubled"] > 1 << 20 and prices["max_num_seqs doubled (same KV cache)"] > 1 << 20
    r = plan(LLAMA_8B, "--backend", "cpu", "--memory", "20GiB")
    prices = {m[1].strip(): int(m[2].replace(",", "")) for m in re.finditer(r"^  (\S.*?)  +([+-][\d,]+) ", r.stdout, re.M)}
    tokens = int(re.search(r"= (\d+) tokens", r.stdout)[1])
    assert prices["kv_cache_dtype = f32"] == tokens * 131072


def test_every_row_has_a_size_that_people_read(plan):
    rows = re.findall(r"^(\w+) +(?:exact|calibrated|assumed) +([\d,]+) +([\d.]+) (\w+)  ", plan(LLAMA_8B).stdout, re.M)
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
