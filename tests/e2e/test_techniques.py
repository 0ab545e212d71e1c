"""docs/techniques.md: each table is that of the results file that it names, and each technique's variants exist."""

import random
import re
import sys

from harness import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import bench_techniques as b  # noqa: E402


def test_the_tables_are_made_of_the_results():
    page = b.PAGE.read_text()
    for name in (*b.TECHNIQUES, b.UNDER_LOAD, b.WEIGHTS, b.QAT):
        lines = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", page, re.S)[1]
        source = re.search(r"`bench/results/([^`]+\.json)`", lines)
        want = b.lines_of(name, ROOT / "bench" / "results" / source[1]) if source else "Not measured yet.\n"
        assert lines == want, name


def test_weights_have_bytes_speed_and_loss(monkeypatch):
    body = lambda n_prompt, n_output: b.body(random.Random(1), min(n_prompt, 40), n_output, 0)
    monkeypatch.setattr(b.weights, "ROWS", [("F32", "rtn", "f32"), ("Q4_0", "imatrix", "int8")])
    doc = {"model_file": "m", "threads": 1, "machine": {"cpu": "c"}}
    rows = list(b.weights.run(300, 600, body, "quality"))
    assert b.weights.table(rows, doc).count("| not measured ") == 4  # the speeds
    rows = list(b.weights.run(300, 600, body, "speed", rows))
    assert rows[0]["kl"]["value"] == 0 and 0 < rows[1]["kl"]["value"] < 1 and rows[1]["top1"]["value"] > 0.5
    assert rows[0]["bytes"] > 5.5 * rows[1]["bytes"]
    assert all(r["bytes"] == r["ledger_bytes"] and r["prefill_tokens_per_s"] > 0 and r["decode_tokens_per_s"] > 0 for r in rows)
    assert b.weights.table(rows, doc).count("\n| ") == 3 and "not measured" not in b.weights.table(rows, doc)


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
