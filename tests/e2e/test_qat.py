"""bench/qat.py: its gradients are those of its loss, it rounds as vramd does, and every row of its table is measured."""

import sys

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from harness import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import qat  # noqa: E402
import weights  # noqa: E402

TEXT = ROOT / "tests" / "golden" / "eval" / "hamlet.txt"


def test_gradients_are_differences_of_the_loss(monkeypatch):
    for name in ("COS", "SIN"):
        monkeypatch.setattr(qat, name, getattr(qat, name).astype(np.float64))
    r = np.random.default_rng(3)
    p = {k: v.astype(np.float64) * (r.uniform(0.5, 1.5, v.shape) if v.ndim == 1 else 20 if k == "embed_tokens" else 1)
         for k, v in qat.new_parameters().items()}
    tokens = r.integers(0, 256, (2, 17))
    _, grad = qat.loss_and_gradients(p, tokens)
    assert grad.keys() == p.keys()
    for name in ["embed_tokens", "lm_head", "0 q", "3 k", "2 v", "1 o", "4 gate", "5 up", "0 down", "0 attention", "2 mlp", "last"]:
        way = r.standard_normal(p[name].shape)
        up, down = (qat.loss_and_gradients({**p, name: p[name] + sign * way}, tokens)[0] for sign in (1e-5, -1e-5))
        assert (up - down) / 2e-5 == pytest.approx((grad[name] * way).sum(), rel=1e-4), name


def test_a_twin_is_rounded_as_its_file_is(tmp_path):
    rows, said = qat.run(tmp_path / "made", 4, 600, TEXT, TEXT)
    assert [(r["trained_for"], r["type"], r["method"], r["activations"]) for r in rows] == qat.ROWS
    assert rows[0]["kl"]["value"] == 0 and all(r["perplexity"]["value"] < 400 for r in rows)
    bytes_of = {r["type"]: r["bytes"] for r in rows}
    assert bytes_of["F32"] > bytes_of["BF16"] > bytes_of["Q8_0"] > bytes_of["Q4_0"]
    assert weights.qat_table({**said, "rows": rows}).count("\n| ") == 1 + len(rows)
    exact = {t.name: np.array(t.data) for t in gguf.GGUFReader(tmp_path / "made" / "Q4_0-F32-rtn.gguf").tensors}
    for t in gguf.GGUFReader(tmp_path / "made" / "Q4_0-Q4_0-rtn.gguf").tensors:
        if len(t.shape) == 2:
            assert np.array_equal(dequantize(t.data, t.tensor_type), qat.q4_0(exact[t.name])), t.name
    eight = gguf.GGUFReader(tmp_path / "made" / "Q8_0-Q8_0-rtn.gguf").tensors
    assert all(np.array_equal(x := dequantize(t.data, t.tensor_type), qat.q8_0(x)) for t in eight if t.name == "blk.0.ffn_up.weight")
