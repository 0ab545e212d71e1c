#!/usr/bin/env python3
"""A model with float32 weights that lie on no grid, out of a GGUF file of any type of a llama or a Gemma 3: its numbers, with
channels rescaled in pairs so that the model computes the same (norm and the matrices behind it, up and down, v and
output; of llama rotary pairs of q and k, which Gemma norms). For measuring quantisation where the weights at hand were quantised
before. Matrices outside the layers keep their numbers.

    quant_source.py FROM.gguf TO.gguf
"""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
import gguf  # noqa: E402
from requantise import rewrite, values  # noqa: E402

SPAN, SEED = 0.5, 7


def factors(n, *names):
    """2^U(-SPAN, SPAN), the same for the same names."""
    seed = [SEED] + [ord(c) for c in " ".join(map(str, names))]
    return np.exp2(np.random.default_rng(seed).uniform(-SPAN, SPAN, n)).astype(np.float32)


def main(source, target):
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())

    def key(name):
        return int(reader.fields[f"{arch}.{name}"].contents())

    assert arch in ("llama", "gemma3"), arch
    width, ff, heads, kv = key("embedding_length"), key("feed_forward_length"), key("attention.head_count"), key("attention.head_count_kv")
    head = key("attention.key_length") if f"{arch}.attention.key_length" in reader.fields else width // heads
    shared = heads // kv

    def change(name, x):
        parts = name.split(".")
        if parts[0] != "blk":
            return x
        layer, what = parts[1], parts[2]
        before, behind = factors(width, layer, "attn"), factors(width, layer, "ffn")
        inner, v = factors(ff, layer, "up"), factors(kv * head, layer, "v").reshape(kv, 1, head)
        pair = np.repeat(factors(kv * head // 2, layer, "pair"), 2).reshape(kv, 1, head) if arch == "llama" else np.ones((kv, 1, head))
        to_q = np.broadcast_to(1 / pair, (kv, shared, head)).reshape(-1, 1)
        to_out = np.broadcast_to(1 / v, (kv, shared, head)).reshape(-1)
        kinds = {
            "attn_norm": lambda: x / before, "ffn_norm": lambda: x / behind,
            "attn_q": lambda: x * before * to_q, "attn_k": lambda: x * before * pair.reshape(-1, 1),
            "attn_v": lambda: x * before * v.reshape(-1, 1), "attn_output": lambda: x * to_out,
            "ffn_gate": lambda: x * behind, "ffn_up": lambda: x * behind * inner[:, None], "ffn_down": lambda: x / inner,
        }
        return kinds[what]().astype(np.float32) if what in kinds else x

    vectors = {t.name: change(t.name, np.array(t.data)) for t in reader.tensors if len(t.shape) < 2}
    rewrite(source, target, lambda t, layer: (change(t.name, values(t)), None), vector=lambda t: vectors[t.name])


if __name__ == "__main__":
    main(*sys.argv[1:])
