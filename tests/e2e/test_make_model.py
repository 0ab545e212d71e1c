"""bench/make_model.py: files that gguf reads and vramd serves, spread as they should be, the same from the same seed."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from harness import ROOT, Daemon, vramd

TYPES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]


def make(path, *options):
    subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, *map(str, options)], check=True,
                   stdout=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("name", TYPES)
def test_values_are_spread_as_trained_ones_are(tmp_path, name):
    tensors = gguf.GGUFReader(make(tmp_path / "m.gguf", "--shape", "tiny", "--type", name)).tensors
    assert len(tensors) == 3 + 2 * 9
    for t in tensors:
        if t.name.endswith("norm.weight"):
            assert (t.data == 1).all()
            continue
        assert t.tensor_type.name == name
        x = dequantize(t.data, t.tensor_type)
        wanted = {"token_embd.weight": 1, "output.weight": 4 / 16}.get(t.name, 1 / x.shape[1] ** 0.5)
        assert abs(x.std() / wanted - 1) < 0.06 and abs(x.mean()) < 0.15 * wanted and abs(x).max() < 5 * wanted


@pytest.mark.parametrize("name, shape, layers", [("BF16", "tiny", 1), ("Q4_0", "tiny", 1), ("Q6_K", "tiny", 1), ("Q4_0", "qwen35", 4)])
def test_it_serves(tmp_path, name, shape, layers):
    d = Daemon("--model", str(make(tmp_path / "m.gguf", "--shape", shape, "--type", name, "--layers", layers, "--vocab", 1000)))
    try:
        text = "!the garden, né 日本"
        ids = d.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
        assert len(ids) < len(text.encode()) and d.http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == text
        a = d.complete(text, logprobs=1, ignore_eos=True).json()["choices"][0]["logprobs"]["token_logprobs"]
        assert len(a) == 16 and all(np.isfinite(a))
    finally:
        d.stop()


def test_shapes_and_seeds(tmp_path):
    a, b, c = (make(tmp_path / n, "--shape", "tiny", "--seed", s).read_bytes() for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert a == b and len(a) == len(c) and a != c
    head = make(tmp_path / "head.gguf", "--shape", "tiny", "--head-type", "Q6_K")
    assert {t.tensor_type.name for t in gguf.GGUFReader(head).tensors if t.name == "output.weight"} == {"Q6_K"}
    moe = gguf.GGUFReader(make(tmp_path / "moe.gguf", "--shape", "moe", "--layers", 1, "--vocab", 300))
    assert {t.name: list(t.shape) for t in moe.tensors}["blk.0.ffn_down_exps.weight"] == [1792, 1024, 8]
    tied = make(tmp_path / "tied.gguf", "--shape", "1b", "--layers", 1, "--vocab", 300)
    r = vramd("plan", "--model", str(tied))
    assert r.returncode == 0 and "output" not in [t.name for t in gguf.GGUFReader(tied).tensors], r.stdout


def test_the_llama_beside_qwen35_has_as_many_weights(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    import make_model as m
    a, b = (sum(t.bytes() for t in m.tensors_of(m.SHAPES[n], m.TYPES["Q4_0"], m.TYPES["Q4_0"])) for n in ("qwen35", "as_qwen35"))
    assert abs(a / b - 1) < 0.02
