"""A tiny random gpt-oss, and its logits by plain formulas in float64.

    python tests/golden/make_gpt_oss.py            # needs gguf, numpy
    python tests/golden/make_gpt_oss.py --check    # torch and transformers too: compares formulas and folder with them

Writes into tests/golden/families/, in the formats that make_families.py describes:
    gpt-oss.gguf   experts in MXFP4, other matrices in F16, vectors and the router in F32
    gpt-oss.bin    tokens and logits
    gpt-oss/       the same model as Hugging Face has it: config.json, model.safetensors with blocks and scales
The formulas are those of transformers' modeling_gpt_oss.py: whole sequences, no cache, every expert written out. Compared
with transformers 5.24 in float64: 8.4e-15; and it reads from the folder, blocks and scales too, exactly these numbers.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np

from golden_files import finish_gguf, write_logits, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, FF, LAYERS, HEADS, KV, HEAD, EXPERTS, USED, WINDOW, EPS, MAX, TOKENS = 96, 64, 32, 3, 6, 2, 16, 6, 3, 12, 1e-5, 256, 60
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=32.0, beta_slow=1.0, truncate=False)
THETA, LIMIT = 1000.0, 7.0
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def weights(rng, vocab=VOCAB):
    """By the names of Hugging Face: numbers that both files hold exactly. Experts as pairs of codes, one of 16 for each
    number, and exponents of two, one for each 32."""
    w = {}

    def matrix(name, *shape, scale=1.5, to=np.float16):
        w[name + ".weight"] = to(rng.uniform(-1, 1, shape) * (scale / math.sqrt(shape[-1]))).astype(np.float64)

    def vector(name, *shape, at=0.0, scale=0.3):  # as bfloat16 has them
        x = np.float32(at + scale * rng.uniform(-1, 1, shape))
        w[name] = (x.view(np.uint32) & 0xffff0000).view(np.float32).astype(np.float64)

    def experts(name, rows, cols, power):
        codes = rng.integers(0, 16, (EXPERTS, rows, cols), np.uint8)
        w[name] = codes, rng.integers(power, power + 3, (EXPERTS, rows, cols // 32))

    matrix("embed_tokens", vocab, EMBD, scale=math.sqrt(EMBD))
    matrix("lm_head", vocab, EMBD)
    vector("norm.weight", EMBD, at=1.0)
    for layer in range(LAYERS):
        p = f"layers.{layer}."
        vector(p + "input_layernorm.weight", EMBD, at=1.0)
        vector(p + "post_attention_layernorm.weight", EMBD, at=1.0)
        for name, rows, cols in (("q", HEADS * HEAD, EMBD), ("k", KV * HEAD, EMBD), ("v", KV * HEAD, EMBD), ("o", EMBD, HEADS * HEAD)):
            matrix(p + f"self_attn.{name}_proj", rows, cols, scale=2.5)
            vector(p + f"self_attn.{name}_proj.bias", rows)
        vector(p + "self_attn.sinks", HEADS, scale=2.0)
        matrix(p + "mlp.router", EXPERTS, EMBD, scale=3.0, to=np.float32)
        vector(p + "mlp.router.bias", EXPERTS, scale=1.0)
        experts(p + "mlp.experts.gate_up_proj", 2 * FF, EMBD, -5)
        vector(p + "mlp.experts.gate_up_proj_bias", EXPERTS, 2 * FF, scale=2.0)
        experts(p + "mlp.experts.down_proj", EMBD, FF, -8)
        vector(p + "mlp.experts.down_proj_bias", EXPERTS, EMBD)
    return w


def numbers(pair):
    codes, powers = pair
    return E2M1[codes] * np.repeat(2.0 ** powers, 32, -1)


# ---- formulas


def rms(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def frequencies(truncate=False):
    """YaRN: dimensions that turn often within the original context stay, others are stretched; the range between is not
    rounded."""
    f = THETA ** (-np.arange(0, HEAD, 2) / HEAD)

    def turning(turns):
        return HEAD * math.log(YARN["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(THETA))

    low, high = turning(YARN["beta_fast"]), turning(YARN["beta_slow"])
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, HEAD - 1)
    ramp = np.clip((np.arange(HEAD // 2) - low) / max(high - low, 0.001), 0, 1)
    return f * (1 - ramp) + f / YARN["factor"] * ramp


def rotate(x, truncate):
    n, amplitude = HEAD // 2, 0.1 * math.log(YARN["factor"]) + 1
    a = (np.arange(len(x))[:, None] * frequencies(truncate))[:, None]
    c, s, low, high = amplitude * np.cos(a), amplitude * np.sin(a), x[..., :n], x[..., n:]
    return np.concatenate([low * c - high * s, high * c + low * s], -1)


def attention(w, p, x, window, truncate):
    q, k, v = ((x @ w[p + f"{n}_proj.weight"].T + w[p + f"{n}_proj.bias"]).reshape(len(x), -1, HEAD) for n in "qkv")
    q, k = rotate(q, truncate), rotate(k, truncate)
    k, v = (np.repeat(y, HEADS // KV, 1) for y in (k, v))
    s = np.einsum("thd,uhd->htu", q, k) / math.sqrt(HEAD)
    at = np.arange(len(x))
    s = np.where((at[:, None] >= at) & (at[:, None] - at < window), s, -np.inf)
    sink = np.broadcast_to(w[p + "sinks"][:, None, None], (HEADS, len(x), 1))
    s = np.concatenate([s, sink], -1)
    s = np.exp(s - s.max(-1, keepdims=True))
    s = (s / s.sum(-1, keepdims=True))[..., :-1]
    y = np.einsum("htu,uhd->thd", s, v).reshape(len(x), -1)
    return y @ w[p + "o_proj.weight"].T + w[p + "o_proj.bias"]


def mixture(w, p, x, seen):
    logits = x @ w[p + "router.weight"].T + w[p + "router.bias"]
    chosen = np.argsort(-logits, -1, kind="stable")[:, :USED]
    gate_up, down = numbers(w[p + "experts.gate_up_proj"]), numbers(w[p + "experts.down_proj"])
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = np.exp(logits[t, chosen[t]] - logits[t].max())
        for e, b in zip(chosen[t], by / by.sum()):
            z = gate_up[e] @ x[t] + w[p + "experts.gate_up_proj_bias"][e]
            g, u = z[0::2], z[1::2]
            seen["gate"] += (g > LIMIT).sum()
            seen["up"] += (abs(u) > LIMIT).sum()
            g, u = np.minimum(g, LIMIT), np.clip(u, -LIMIT, LIMIT)
            y[t] += b * (down[e] @ (g / (1 + np.exp(-1.702 * g)) * (u + 1)) + w[p + "experts.down_proj_bias"][e])
    return y


def forward(w, tokens, truncate=False):
    x, seen = w["embed_tokens.weight"][tokens], dict(gate=0, up=0)
    for layer in range(LAYERS):
        p = f"layers.{layer}."
        window = MAX if layer % 2 else WINDOW
        x = x + attention(w, p + "self_attn.", rms(x, w[p + "input_layernorm.weight"]), window, truncate)
        x = x + mixture(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"]), seen)
    assert seen["gate"] > 20 and seen["up"] > 20, seen  # the limits count
    return rms(x, w["norm.weight"]) @ w["lm_head.weight"].T


# ---- files

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.sinks": "attn_sinks", "mlp.router": "ffn_gate_inp", "mlp.experts.down_proj": "ffn_down_exps"}
ENDS = {"embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "norm.weight": "output_norm.weight"}


def ggml_blocks(pair):
    """17 bytes for 32 numbers: the exponent, then codes i (low) and i + 16 (high) in byte i."""
    codes, powers = pair
    c = codes.reshape(*powers.shape, 32)
    blocks = np.concatenate([np.uint8(powers + 127)[..., None], c[..., :16] | c[..., 16:] << 4], -1)
    return blocks.reshape(*codes.shape[:2], -1)


def gguf_tensors(w):
    for name, x in w.items():
        if name in ENDS:
            yield ENDS[name], x
            continue
        _, layer, rest = name.split(".", 2)
        end = "bias" if rest.endswith("bias") else "weight"
        rest = rest.removesuffix(".weight").removesuffix(".bias").removesuffix("_bias")
        if rest == "mlp.experts.gate_up_proj":
            for i, part in enumerate(("gate", "up")):
                rows = (x[0][:, i::2], x[1][:, i::2]) if isinstance(x, tuple) else x[:, i::2]
                yield f"blk.{layer}.ffn_{part}_exps.{end}", rows
        else:
            yield f"blk.{layer}.{NAMES[rest]}.{end}", x


def write_gguf(path, w, vocabulary=lambda writer: None):
    g = gguf.GGUFWriter(path, "gpt-oss")
    g.add_name("tiny random gpt_oss")
    g.add_context_length(MAX)
    g.add_embedding_length(EMBD)
    g.add_block_count(LAYERS)
    g.add_feed_forward_length(FF)
    g.add_expert_feed_forward_length(FF)
    g.add_expert_count(EXPERTS)
    g.add_expert_used_count(USED)
    g.add_head_count(HEADS)
    g.add_head_count_kv(KV)
    g.add_key_length(HEAD)
    g.add_value_length(HEAD)
    g.add_sliding_window(WINDOW)
    g.add_rope_freq_base(THETA)
    g.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    g.add_rope_scaling_factor(YARN["factor"])
    g.add_rope_scaling_orig_ctx_len(YARN["original_max_position_embeddings"])
    g.add_layer_norm_rms_eps(EPS)
    vocabulary(g)
    for name, x in gguf_tensors(w):
        if isinstance(x, tuple):
            g.add_tensor(name, ggml_blocks(x), raw_dtype=gguf.GGMLQuantizationType.MXFP4)
        else:
            wide = x.ndim == 1 or name.endswith("bias") or "gate_inp" in name
            g.add_tensor(name, np.ascontiguousarray(x.astype(np.float32 if wide else np.float16)))
    finish_gguf(g)


def stored(w):
    """Names and arrays as they are published: neighbours share a byte, the first in the low half."""
    for name, x in w.items():
        name = name if name == "lm_head.weight" else "model." + name
        if isinstance(x, tuple):
            c = x[0].reshape(*x[1].shape, 16, 2)
            yield name + "_blocks", c[..., 0] | c[..., 1] << 4
            yield name + "_scales", np.uint8(x[1] + 127)
        elif "router.weight" in name:
            yield name, x.astype(np.float32)
        elif name.endswith("proj.weight") or x.ndim == 2 and name.endswith(".weight"):
            yield name, x.astype(np.float16)
        else:
            yield name, (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_folder(folder, w):
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", dict(stored(w)))
    c = dict(architectures=["GptOssForCausalLM"], model_type="gpt_oss", hidden_size=EMBD, num_hidden_layers=LAYERS,
             num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=HEAD, intermediate_size=FF, num_local_experts=EXPERTS,
             num_experts_per_tok=USED, vocab_size=VOCAB, max_position_embeddings=MAX, rms_norm_eps=EPS, sliding_window=WINDOW,
             layer_types=["full_attention" if l % 2 else "sliding_attention" for l in range(LAYERS)], attention_bias=True,
             hidden_act="silu", swiglu_limit=LIMIT, rope_theta=THETA, rope_scaling=YARN, tie_word_embeddings=False,
             torch_dtype="bfloat16", quantization_config=dict(
                 quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                               "model.embed_tokens", "lm_head"]))
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")


def named(model, w):
    """Each parameter of a model of transformers, and what it should be: matrices of experts have their inputs first."""
    for name, p in model.named_parameters():
        x = w[name.removeprefix("model.")]
        x = numbers(x).swapaxes(1, 2) if isinstance(x, tuple) else x
        assert p.shape == x.shape, (name, p.shape, x.shape)
        yield name, p, x


def check(w, tokens, logits):
    import torch
    import transformers
    published = transformers.AutoModelForCausalLM.from_pretrained(
        OUT / "gpt-oss", dtype=torch.float32, quantization_config=transformers.Mxfp4Config(dequantize=True))
    for name, p, x in named(published, w):
        assert (p.detach().double().numpy() == x).all(), name
    # transformers computes norms and routers in float32 whatever the model's type.
    torch.float32, torch.float, torch.Tensor.float = torch.float64, torch.float64, torch.Tensor.double
    config = transformers.AutoConfig.for_model(
        "gpt_oss", vocab_size=VOCAB, hidden_size=EMBD, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV,
        head_dim=HEAD, intermediate_size=FF, num_local_experts=EXPERTS, num_experts_per_tok=USED, sliding_window=WINDOW,
        rms_norm_eps=EPS, max_position_embeddings=MAX, rope_parameters=dict(YARN, rope_theta=THETA), tie_word_embeddings=False,
        attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    for _, p, x in named(model, w):
        p.data = torch.from_numpy(np.ascontiguousarray(x))
    with torch.no_grad():
        want = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    print("largest difference from transformers", np.abs(want - logits).max())
    assert np.abs(want - logits).max() < 1e-12


def main():
    rng = np.random.default_rng(11)
    w, tokens = weights(rng), rng.integers(0, VOCAB, TOKENS)
    logits = forward(w, tokens)
    assert np.abs(forward(w, tokens, truncate=True) - logits).max() > 1e-3  # rounding YaRN's range would be seen
    if "--check" in sys.argv:
        check(w, tokens, logits)
        return
    write_gguf(OUT / "gpt-oss.gguf", w)
    write_folder(OUT / "gpt-oss", w)
    write_logits(OUT / "gpt-oss.bin", tokens, logits)
    print("logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
