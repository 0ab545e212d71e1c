"""Tiny random models of families that vary llama's layer, and their logits by plain formulas in float64.

    python tests/golden/make_variants.py [NAME ...]

Writes into tests/golden/families/, in the formats that make_families.py describes:
    NAME.gguf   random weights in F16 (norms and biases F32), no vocabulary
    NAME.bin    tokens and logits
    NAME/       the same model as Hugging Face has them: config.json, model.safetensors
The formulas are those of transformers' modeling_gemma2.py, modeling_smollm3.py, modeling_ministral3.py,
modeling_olmo2.py, modeling_olmo3.py, modeling_glm4.py and modeling_granite.py: whole sequences, no cache, every
score written out. They agree within 2e-14 with a second set of plain formulas, which was compared with transformers
5.19 in float64. Needs numpy and gguf; tests/engine/test_families.c needs neither.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np

from golden_files import finish_gguf, write_logits, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, FF, HEADS, KV, EPS, MAX, TOKENS = 96, 32, 64, 4, 2, 1e-6, 256, 60
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0,
            beta_slow=1.0)
YARN_KEYS = {"rope.freq_base": 1e4, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
             "rope.scaling.original_context_length": 16, "rope.scaling.yarn_beta_fast": 32.0,
             "rope.scaling.yarn_beta_slow": 1.0}


def plain_rope(theta, **more):
    return dict(rope_type="default", rope_theta=theta, **more)


ATTENTION = ("attn_q", "attn_k", "attn_v")
# arch, class: in GGUF and in config.json. layers, head: sizes. json, keys: what config.json and GGUF have beside sizes.
# biases: of which matrices. type: of config.json, where it is not the model's name here.
# permuted: GGUF has the rows of q and k so that rotated pairs are neighbours.
FAMILIES = {
    "gemma2": dict(arch="gemma2", cls="Gemma2ForCausalLM", layers=3, head=24, tied=True, window=12, full_every=2,
                   json=dict(query_pre_attn_scalar=24, sliding_window=12, attn_logit_softcapping=1.5,
                             final_logit_softcapping=2.0, rope_parameters=plain_rope(1e4),
                             hidden_activation="gelu_pytorch_tanh"),
                   keys={"rope.freq_base": 1e4, "attention.sliding_window": 12, "attn_logit_softcapping": 1.5,
                         "final_logit_softcapping": 2.0}),
    "llama-bias": dict(arch="llama", cls="LlamaForCausalLM", type="llama", layers=2, head=8, permuted=True,
                       biases=ATTENTION + ("attn_output", "ffn_gate", "ffn_up", "ffn_down"),
                       json=dict(rope_theta=1e4, attention_bias=True, mlp_bias=True), keys={"rope.freq_base": 1e4}),
    "smollm3": dict(arch="smollm3", cls="SmolLM3ForCausalLM", layers=5, head=8, tied=True, permuted=True,
                    json=dict(no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0, 1], use_sliding_window=False,
                              rope_theta=5e6),
                    keys={"rope.freq_base": 5e6}),
    "ministral3": dict(arch="mistral3", cls="Ministral3ForCausalLM", layers=2, head=16, permuted=True,
                       json=dict(rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)),
                       keys=YARN_KEYS | {"rope.scaling.yarn_log_multiplier": 1.0,
                                         "attention.temperature_scale": 0.3}),
    "olmo2": dict(arch="olmo2", cls="Olmo2ForCausalLM", layers=2, head=8, post_only=True,
                  json=dict(rope_theta=5e5), keys={"rope.freq_base": 5e5}),
    "olmo3": dict(arch="olmo2", cls="Olmo3ForCausalLM", layers=5, head=8, post_only=True, window=12, full_every=4,
                  json=dict(sliding_window=12, layer_types=["sliding_attention"] * 3 + ["full_attention"] +
                            ["sliding_attention"],
                            rope_parameters=dict(full_attention=YARN, sliding_attention=plain_rope(1e4))),
                  keys=YARN_KEYS | {"rope.scaling.yarn_attn_factor": 0.1 * math.log(4.0) + 1,
                                    "attention.sliding_window": 12,
                                    "attention.sliding_window_pattern": [True, True, True, False, True]}),
    "glm4": dict(arch="glm4", cls="Glm4ForCausalLM", layers=2, head=16, biases=ATTENTION, fused=True,
                 json=dict(attention_bias=True, rope_parameters=plain_rope(1e4, partial_rotary_factor=0.5)),
                 keys={"rope.freq_base": 1e4, "rope.dimension_count": 8}),
    "granite": dict(arch="granite", cls="GraniteForCausalLM", layers=2, head=8, tied=True, permuted=True,
                    json=dict(embedding_multiplier=3.0, residual_multiplier=0.3, attention_multiplier=0.2,
                              logits_scaling=2.0, rope_theta=1e4),
                    keys={"rope.freq_base": 1e4, "embedding_scale": 3.0, "residual_scale": 0.3,
                          "attention.scale": 0.2, "logit_scale": 2.0}),
}

# ---- formulas ----


def rms(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def yarn_frequencies(n, rope):
    """NTK-by-parts: dimensions that turn often within the original context stay, others are stretched."""
    f = rope["rope_theta"] ** (-np.arange(0, n, 2) / n)

    def turning(turns):
        return n * math.log(rope["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (
            2 * math.log(rope["rope_theta"]))

    low = max(math.floor(turning(rope["beta_fast"])), 0)
    high = min(math.ceil(turning(rope["beta_slow"])), n - 1)
    ramp = np.clip((np.arange(n // 2) - low) / max(high - low, 0.001), 0, 1)
    return f * (1 - ramp) + f / rope["factor"] * ramp


def rotation(config, kind, n):
    """Frequencies and amplitude of a layer of that kind."""
    rope = config.get("rope_parameters") or plain_rope(config.get("rope_theta"))
    rope = rope.get(kind, rope)
    if rope["rope_type"] == "default":
        return rope["rope_theta"] ** (-np.arange(0, n, 2) / n), 1.0
    same = rope.get("mscale") and rope["mscale"] == rope["mscale_all_dim"]
    return yarn_frequencies(n, rope), 1.0 if same else 0.1 * math.log(rope["factor"]) + 1


def rotate(x, frequencies, amplitude, adjacent):
    """x: [tokens, heads, dimensions]; the first 2 * len(frequencies) of them turn."""
    n = 2 * len(frequencies)
    a = np.arange(len(x))[:, None] * frequencies
    c, s = amplitude * np.cos(a)[:, None], amplitude * np.sin(a)[:, None]
    i, j = (np.arange(0, n, 2), np.arange(1, n, 2)) if adjacent else (np.arange(n // 2), np.arange(n // 2) + n // 2)
    y = x.copy()
    y[..., i], y[..., j] = x[..., i] * c - x[..., j] * s, x[..., i] * s + x[..., j] * c
    return y


def attend(q, k, v, scale, window, cap):
    group, t = HEADS // KV, np.arange(len(q))
    scores = np.einsum("ihd,jhd->hij", q, np.repeat(k, group, 1)) * scale
    if cap:
        scores = cap * np.tanh(scores / cap)
    seen = t[:, None] >= t
    if window:
        seen &= t[:, None] - t < window
    p = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    p /= p.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", p, np.repeat(v, group, 1)).reshape(len(q), -1)


def forward(name, f, w, ids):
    c, head, gemma, one = f["json"], f["head"], name == "gemma2", float(name == "gemma2")
    x = w["token_embd.weight"][ids] * (math.sqrt(EMBD) if gemma else c.get("embedding_multiplier", 1))
    residual = c.get("residual_multiplier", 1)
    scale = c.get("attention_multiplier", c.get("query_pre_attn_scalar", head) ** -0.5)
    for l in range(f["layers"]):
        def part(kind, b=w, l=l):
            return b.get(f"blk.{l}.{kind}")

        def linear(kind, y, part=part):
            bias = part(f"{kind}.bias")
            return y @ part(f"{kind}.weight").T + (0 if bias is None else bias)

        full = not f.get("window") or (l + 1) % f["full_every"] == 0
        y = x if f.get("post_only") else rms(x, part("attn_norm.weight") + one)
        q, k, v = (linear(kind, y) for kind in ATTENTION)
        if f.get("post_only"):
            q, k = rms(q, part("attn_q_norm.weight")), rms(k, part("attn_k_norm.weight"))
        q, k, v = q.reshape(len(x), HEADS, head), k.reshape(len(x), KV, head), v.reshape(len(x), KV, head)
        if c.get("no_rope_layers", [1] * 9)[l]:
            turn = rotation(c, "full_attention" if full else "sliding_attention", head // 2 if name == "glm4" else head)
            q, k = rotate(q, *turn, name == "glm4"), rotate(k, *turn, name == "glm4")
        if name == "ministral3":
            q = q * (1 + 0.3 * np.log(1 + np.arange(len(x)) // 16))[:, None, None]
        o = attend(q, k, v, scale, 0 if full else f["window"], c.get("attn_logit_softcapping"))
        y = linear("attn_output", o)
        post = part("post_attention_norm.weight")
        x = x + residual * (y if post is None else rms(y, post + one))
        y = x if f.get("post_only") else rms(x, part("ffn_norm.weight") + one)
        gate, up = np.split(linear("ffn_up", y), 2, -1) if f.get("fused") else (linear("ffn_gate", y), linear("ffn_up", y))
        y = linear("ffn_down", (gelu if gemma else silu)(gate) * up)
        post = part("post_ffw_norm.weight")
        x = x + residual * (y if post is None else rms(y, post + one))
    y = rms(x, w["output_norm.weight"] + one) @ w.get("output.weight", w["token_embd.weight"]).T
    y = y / c.get("logits_scaling", 1)
    cap = c.get("final_logit_softcapping")
    return cap * np.tanh(y / cap) if cap else y


# ---- files ----


def shapes(f):
    """Tensors by their names in GGUF; vectors are norms and biases."""
    q, kv = HEADS * f["head"], KV * f["head"]
    yield "token_embd.weight", (VOCAB, EMBD)
    for l in range(f["layers"]):
        for n, shape in {"attn_q": (q, EMBD), "attn_k": (kv, EMBD), "attn_v": (kv, EMBD), "attn_output": (EMBD, q),
                         "ffn_down": (EMBD, FF)}.items():
            yield f"blk.{l}.{n}.weight", shape
        if f.get("fused"):
            yield f"blk.{l}.ffn_up.weight", (2 * FF, EMBD)
        else:
            yield f"blk.{l}.ffn_gate.weight", (FF, EMBD)
            yield f"blk.{l}.ffn_up.weight", (FF, EMBD)
        for n in f.get("biases", ()):
            yield f"blk.{l}.{n}.bias", ({"attn_q": q, "attn_k": kv, "attn_v": kv, "attn_output": EMBD, "ffn_down": EMBD}.get(n, FF),)
        if f.get("post_only"):
            yield f"blk.{l}.attn_q_norm.weight", (q,)
            yield f"blk.{l}.attn_k_norm.weight", (kv,)
        else:
            yield f"blk.{l}.attn_norm.weight", (EMBD,)
            yield f"blk.{l}.ffn_norm.weight", (EMBD,)
        if f.get("post_only") or f["arch"] in ("gemma2", "glm4"):
            yield f"blk.{l}.post_attention_norm.weight", (EMBD,)
            yield f"blk.{l}.post_ffw_norm.weight", (EMBD,)
    yield "output_norm.weight", (EMBD,)
    if not f.get("tied"):
        yield "output.weight", (VOCAB, EMBD)


def random_weights(f, rng):
    """Numbers that the files hold exactly, as large as keeps the residual stream at about 1."""
    w = {}
    for name, shape in shapes(f):
        x = rng.uniform(-1, 1, shape)
        if len(shape) == 1:
            zero = f["arch"] == "gemma2" or name.endswith("bias")
            w[name] = np.float64(np.float32(np.float32(x * 0.3) + (0 if zero else 1)))
        else:
            w[name] = np.float64(np.float16(x * (1 if "embd" in name else 1.5 / math.sqrt(shape[1]))))
    return w


def permuted(x, n_heads):
    """Rows of q or k: the halves of each head become neighbours."""
    return x.reshape(n_heads, 2, len(x) // n_heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write_gguf(name, f, w):
    g = gguf.GGUFWriter(OUT / f"{name}.gguf", f["arch"])
    g.add_name(f"tiny random {name}")
    g.add_context_length(MAX)
    g.add_embedding_length(EMBD)
    g.add_block_count(f["layers"])
    g.add_feed_forward_length(FF)
    g.add_head_count(HEADS)
    g.add_head_count_kv(KV)
    g.add_key_length(f["head"])
    g.add_value_length(f["head"])
    g.add_layer_norm_rms_eps(EPS)
    for key, v in f["keys"].items():
        add = {str: g.add_string, list: g.add_array, float: g.add_float32, int: g.add_uint32}[type(v)]
        add(f"{f['arch']}.{key}", v)
    for key, x in w.items():
        if f.get("permuted") and (".attn_q." in key or ".attn_k." in key):
            x = permuted(x, HEADS if ".attn_q." in key else KV)
        # Gemma's norms multiply by 1 + w; GGUF files hold the sum.
        one = f["arch"] == "gemma2" and key.endswith("norm.weight")
        g.add_tensor(key, np.float32(x + one) if x.ndim == 1 else np.float16(x))
    finish_gguf(g)


def hf_name(f, name):
    """What transformers calls a tensor."""
    names = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
             "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
             "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "token_embd": "embed_tokens", "output_norm": "norm"}
    if f["arch"] in ("gemma2", "olmo2"):
        names |= {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                  "post_ffw_norm": "post_feedforward_layernorm"}
    if f["arch"] == "glm4":
        names |= {"post_attention_norm": "post_self_attn_layernorm", "post_ffw_norm": "post_mlp_layernorm",
                  "ffn_up": "mlp.gate_up_proj"}
    part = name.split(".")
    if part[0] == "output":
        return "lm_head.weight"
    if part[0] != "blk":
        return f"model.{names[part[0]]}.weight"
    return f"model.layers.{part[1]}.{names[part[2]]}.{part[3]}"


def write_folder(name, f, w):
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", {hf_name(f, key): np.asarray(x, np.float32 if x.ndim == 1 else np.float16)
                                                     for key, x in w.items()})
    c = dict(architectures=[f["cls"]], model_type=f.get("type", name), hidden_size=EMBD, num_hidden_layers=f["layers"],
             num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=f["head"], intermediate_size=FF,
             vocab_size=VOCAB, max_position_embeddings=MAX, rms_norm_eps=EPS,
             tie_word_embeddings=bool(f.get("tied")), torch_dtype="float16", **f["json"])
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")


def main():
    for name in sys.argv[1:] or FAMILIES:
        f, rng = FAMILIES[name], np.random.default_rng(5)
        w = random_weights(f, rng)
        write_gguf(name, f, w)
        write_folder(name, f, w)
        tokens = rng.integers(0, VOCAB, TOKENS)
        logits = forward(name, f, w, tokens)
        write_logits(OUT / f"{name}.bin", tokens, logits)
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
