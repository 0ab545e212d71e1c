"""A tiny random Gemma 4 with shared KV layers and per-layer embeddings, and what its formulas give in float64.

    python tests/golden/make_gemma4.py

Writes tests/golden/families/gemma4.gguf and .bin, in the form of make_families.py. The formulas are those of Gemma4TextModel in
transformers, written out with numpy, each operation by itself: nothing is shared with the C code. Needs gguf and numpy."""

import math
import struct
from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).resolve().parent / "families"
VOCAB, H, FF, HEADS, KV, EPS, WINDOW, PLE = 96, 64, 96, 4, 2, 1e-6, 12, 32
KINDS = ["window", "window", "full", "window", "full", "window", "full"]  # the last layer of each kind is shared, and one more
SHARED, DIM, THETA = 3, {"window": 16, "full": 32}, {"window": 1e4, "full": 1e6}
LIVE = {"window": 1.0, "full": 0.25}  # share of the pairs of a head that turn


def rms(x, w=None):
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    return y if w is None else y * w


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rotate(x, kind):
    """x: [tokens][heads][DIM]; pairs are (i, i + DIM / 2)."""
    n = DIM[kind] // 2
    freq = np.array([THETA[kind] ** (-i / n) if i < LIVE[kind] * n else 0 for i in range(n)])
    angle = np.arange(len(x))[:, None, None] * freq
    a, b = x[..., :n], x[..., n:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def attend(q, k, v, window):
    out = np.zeros_like(q)
    for t in range(len(q)):
        first = max(0, t + 1 - window) if window else 0
        for h in range(HEADS):
            g = h // (HEADS // KV)
            s = k[first:t + 1, g] @ q[t, h]  # the scale is 1
            p = np.exp(s - s.max())
            out[t, h] = p / p.sum() @ v[first:t + 1, g]
    return out.reshape(len(q), -1)


def forward(w, tokens):
    n, layers = len(tokens), len(KINDS)
    x = w["token_embd.weight"][tokens] * math.sqrt(H)
    own = (x @ w["per_layer_model_proj.weight"].T / math.sqrt(H)).reshape(n, layers, PLE)
    of_token = w["per_layer_token_embd.weight"][tokens].reshape(n, layers, PLE) * math.sqrt(PLE)
    inputs = (rms(own, w["per_layer_proj_norm.weight"]) + of_token) / math.sqrt(2)
    kept = {}
    for i, kind in enumerate(KINDS):
        b = lambda name: w[f"blk.{i}.{name}.weight"]  # noqa: E731
        y = rms(x, b("attn_norm"))
        heads = lambda m, k: (y @ m.T).reshape(n, k, DIM[kind])  # noqa: E731
        q = rotate(rms(heads(b("attn_q"), HEADS), b("attn_q_norm")), kind)
        if i < layers - SHARED:
            k = heads(b("attn_k"), KV)
            kept[kind] = rotate(rms(k, b("attn_k_norm")), kind), rms(heads(b("attn_v"), KV))
        o = attend(q, *kept[kind], WINDOW if kind == "window" else 0)
        x = x + rms(o @ b("attn_output").T, b("post_attention_norm"))
        y = rms(x, b("ffn_norm"))
        y = (gelu(y @ b("ffn_gate").T) * (y @ b("ffn_up").T)) @ b("ffn_down").T
        x = x + rms(y, b("post_ffw_norm"))
        y = (gelu(x @ b("inp_gate").T) * inputs[:, i]) @ b("proj").T
        x = (x + rms(y, b("post_norm"))) * b("layer_output_scale")
    return rms(x, w["output_norm.weight"]) @ w["token_embd.weight"].T


def shapes():
    layers = len(KINDS)
    yield "token_embd.weight", (VOCAB, H)
    yield "per_layer_token_embd.weight", (VOCAB, layers * PLE)
    yield "per_layer_model_proj.weight", (layers * PLE, H)
    yield "per_layer_proj_norm.weight", (PLE,)
    yield "output_norm.weight", (H,)
    for i, kind in enumerate(KINDS):
        d, shared = DIM[kind], i >= layers - SHARED
        parts = {"attn_q": (HEADS * d, H), "attn_q_norm": (d,), "attn_output": (H, HEADS * d)}
        if not shared:
            parts |= {"attn_k": (KV * d, H), "attn_v": (KV * d, H), "attn_k_norm": (d,)}
        ff = 2 * FF if shared else FF
        parts |= {"ffn_gate": (ff, H), "ffn_up": (ff, H), "ffn_down": (H, ff), "inp_gate": (PLE, H), "proj": (H, PLE),
                  "layer_output_scale": (1,)}
        parts |= {norm: (H,) for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm")}
        for name, shape in parts.items():
            yield f"blk.{i}.{name}.weight", shape


def write_gguf(path, weights):
    w = gguf.GGUFWriter(path, "gemma4")
    w.add_name("tiny random gemma4")
    w.add_context_length(256)
    w.add_embedding_length(H)
    w.add_block_count(len(KINDS))
    w.add_feed_forward_length([2 * FF if i >= len(KINDS) - SHARED else FF for i in range(len(KINDS))])
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV)
    w.add_key_length(DIM["full"])
    w.add_value_length(DIM["full"])
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_dimension_count(DIM["full"])
    w.add_rope_freq_base(THETA["full"])
    w.add_sliding_window(WINDOW)
    for key, v in (("attention.key_length_swa", DIM["window"]), ("attention.value_length_swa", DIM["window"]),
                   ("rope.dimension_count_swa", DIM["window"]), ("attention.shared_kv_layers", SHARED),
                   ("embedding_length_per_layer_input", PLE)):
        w.add_uint32(f"gemma4.{key}", v)
    w.add_float32("gemma4.rope.freq_base_swa", THETA["window"])
    w.add_array("gemma4.attention.sliding_window_pattern", [kind == "window" for kind in KINDS])
    n = DIM["full"] // 2
    w.add_tensor("rope_freqs.weight", np.array([1 if i < LIVE["full"] * n else 1e30 for i in range(n)], np.float32))
    for name, x in weights.items():
        w.add_tensor(name, x.astype(np.float32 if x.ndim == 1 else np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    rng = np.random.default_rng(5)
    weights = {}
    for name, shape in shapes():
        x = rng.uniform(-1, 1, shape)
        if len(shape) == 1:
            weights[name] = np.float32(1 + 0.3 * x).astype(np.float64)
        else:  # as the file has them
            weights[name] = np.float16(x * (0.5 if "embd" in name else 1.5 / math.sqrt(shape[1]))).astype(np.float64)
    write_gguf(OUT / "gemma4.gguf", weights)
    tokens = rng.integers(0, VOCAB, 60)
    logits = forward(weights, tokens)
    with open(OUT / "gemma4.bin", "wb") as f:
        f.write(struct.pack("<2I", 1, VOCAB) + struct.pack("<2I", 64, len(tokens)) + tokens.astype("<i4").tobytes())
        f.write(logits.astype("<f4").tobytes())
    print("gemma4 logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
