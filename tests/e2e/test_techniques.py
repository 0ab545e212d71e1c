"""docs/techniques.md: its tables are those of the results file, and each technique's variants exist."""

import json
import random
import re
import sys

import pytest

from harness import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import bench_techniques as b  # noqa: E402


def test_the_tables_are_made_of_the_results():
    page = b.PAGE.read_text()
    source = re.search(r"`bench/results/(techniques-[^`]+\.json)`", page)
    if not list((ROOT / "bench" / "results").glob("techniques-*.json")):
        pytest.skip("nothing is measured yet")
    assert source, "docs/techniques.md names no results"
    path = ROOT / "bench" / "results" / source[1]
    assert b.with_tables(page, json.loads(path.read_text()), f"`bench/results/{path.name}`") == page
    for name in (*b.TECHNIQUES, b.WEIGHTS, b.QAT):
        assert f"<!-- table: {name} -->" in page, name


def test_weights_have_bytes_speed_and_loss():
    body = lambda n_prompt, n_output: b.body(random.Random(1), min(n_prompt, 40), n_output, 0)
    rows = b.weights.run(300, 600, body, [("F32", "rtn", "f32"), ("Q4_0", "imatrix", "int8")])
    assert rows[0]["kl"]["value"] == 0 and 0 < rows[1]["kl"]["value"] < 1 and rows[1]["top1"]["value"] > 0.5
    assert rows[0]["bytes"] > 5.5 * rows[1]["bytes"]
    assert all(r["bytes"] == r["ledger_bytes"] and r["prefill_tokens_per_s"] > 0 and r["decode_tokens_per_s"] > 0 for r in rows)
    doc = {"model_file": "m", "threads": 1, "machine": {"cpu": "c"}}
    assert b.weights.table(rows, doc).count("\n| ") == 3


def test_a_round_of_every_technique_has_answers(monkeypatch):
    small = lambda r: [b.body(r, 40, 6, i) for i in range(4)]
    for name, t in b.TECHNIQUES.items():
        monkeypatch.setitem(b.TECHNIQUES, name, {**t, "load": (small, 2)})
        rows = b.run(name, 1)
        assert rows and all(r["failed"] == 0 and r["tokens_per_s"] > 0 for r in rows), rows
        assert rows[0]["ratio"] == 1 and len({r["variant"] for r in rows}) == len(rows)
        if name == "kv":
            by = {r["variant"]: r["kv_bytes"] for r in rows}
            assert by["f32"] == 2 * by["f16"] == 2 * by["bf16"]


def test_batching_under_load_is_live_and_simulated():
    rows = b.batching.run(1, 8)
    assert [r["variant"] for r in rows] == ["continuous", "dynamic", "static"]
    for r in rows:
        assert all(r[f"{kind}_{figure}"] > 0 for kind in ("live", "simulated", "gpu_simulated") for figure in ("tokens_per_s", "ttft_ms", "e2e_ms"))
        assert r["gpu_simulated_tokens_per_s"] <= rows[0]["gpu_simulated_tokens_per_s"]
    assert rows[1]["gpu_simulated_ttft_ms"] > 10 * rows[0]["gpu_simulated_ttft_ms"]  # a first token does not wait for a batch
    assert b.batching.table(rows).count("\n| ") == 4
