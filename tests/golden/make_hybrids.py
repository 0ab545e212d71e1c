"""Tiny random models with recurrent layers, and their logits by plain formulas in float64.

    python tests/golden/make_hybrids.py [NAME ...]

Writes NAME.gguf, NAME.bin and the folder NAME into tests/golden/families/, in the formats of make_families.py and
make_variants.py, for lfm2, lfm2moe, qwen35 and qwen35moe. The formulas are those of transformers' modeling_lfm2.py,
modeling_lfm2_moe.py, modeling_qwen3_5.py and modeling_qwen3_5_moe.py: whole sequences, convolutions as sums over the positions
before, the gated delta rule token by token. Needs numpy and gguf.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np

from golden_files import finish_gguf, write_logits, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, HEADS, KV, EPS, TOKENS, MAX = 96, 64, 4, 2, 1e-5, 60, 256

FAMILIES = {
    "lfm2": SimpleNamespace(arch="lfm2", cls="Lfm2ForCausalLM", kinds=["conv", "full_attention", "conv"], ff=96, width=3,
                            head=16, theta=1e6, experts=0),
    "lfm2moe": SimpleNamespace(arch="lfm2moe", type="lfm2_moe", cls="Lfm2MoeForCausalLM", kinds=["conv", "conv", "full_attention"],
                               ff=96, width=3, head=16, theta=1e6, experts=8, used=3, expert_ff=32, dense=1),
    "qwen35": SimpleNamespace(arch="qwen35", type="qwen3_5_text", cls="Qwen3_5ForCausalLM", kinds=3 * ["linear_attention"] +
                              ["full_attention"], ff=96, width=4, head=32, theta=1e7, key_heads=2, value_heads=4, key_dim=16,
                              value_dim=32, experts=0, dense=0),
    "qwen35moe": SimpleNamespace(arch="qwen35moe", type="qwen3_5_moe_text", cls="Qwen3_5MoeForCausalLM",
                                 kinds=["linear_attention"] * 3 + ["full_attention"], ff=96, width=4, head=32, theta=1e7,
                                 key_heads=2, value_heads=6, key_dim=24, value_dim=16, experts=8, used=3, expert_ff=32,
                                 shared=64, dense=0),
}


def is_mixture(f, layer):
    return f.experts and layer >= f.dense


def random(rng):
    """Weights by the names of Hugging Face, and what adds to them: numbers that the files hold exactly, F16, and F32 of vectors,
    kernels and routers."""
    w = {}

    def matrix(name, *shape, to=np.float16, scale=1.5):
        w[name] = to(rng.uniform(-1, 1, shape) * (scale / math.sqrt(shape[-1]))).astype(np.float64)

    def vector(name, n, at=1.0):
        w[name] = np.float32(at + 0.3 * rng.uniform(-1, 1, n)).astype(np.float64)

    return w, matrix, vector


def lfm2_weights(f, rng):
    w, matrix, vector = random(rng)
    matrix("embed_tokens.weight", VOCAB, EMBD, scale=math.sqrt(EMBD))
    vector("embedding_norm.weight", EMBD)
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        vector(p + "operator_norm.weight", EMBD)
        vector(p + "ffn_norm.weight", EMBD)
        if kind == "conv":
            matrix(p + "conv.in_proj.weight", 3 * EMBD, EMBD)
            matrix(p + "conv.conv.weight", EMBD, 1, f.width, to=np.float32)
            matrix(p + "conv.out_proj.weight", EMBD, EMBD)
        else:
            for name, heads in (("q", HEADS), ("k", KV), ("v", KV)):
                matrix(p + f"self_attn.{name}_proj.weight", heads * f.head, EMBD)
            matrix(p + "self_attn.out_proj.weight", EMBD, HEADS * f.head)
            vector(p + "self_attn.q_layernorm.weight", f.head)
            vector(p + "self_attn.k_layernorm.weight", f.head)
        if is_mixture(f, layer):
            matrix(p + "feed_forward.gate.weight", f.experts, EMBD, to=np.float32, scale=4.0)
            vector(p + "feed_forward.expert_bias", f.experts, 0.0)
            for e in range(f.experts):
                q = p + f"feed_forward.experts.{e}."
                matrix(q + "w1.weight", f.expert_ff, EMBD)
                matrix(q + "w3.weight", f.expert_ff, EMBD)
                matrix(q + "w2.weight", EMBD, f.expert_ff)
        else:
            matrix(p + "feed_forward.w1.weight", f.ff, EMBD)
            matrix(p + "feed_forward.w3.weight", f.ff, EMBD)
            matrix(p + "feed_forward.w2.weight", EMBD, f.ff)
    return w


def qwen35_weights(f, rng):
    w, matrix, vector = random(rng)
    key, inner = f.key_heads * f.key_dim, f.value_heads * f.value_dim
    matrix("embed_tokens.weight", VOCAB, EMBD, scale=math.sqrt(EMBD))
    matrix("lm_head.weight", VOCAB, EMBD)
    vector("norm.weight", EMBD, 0.0)
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        vector(p + "input_layernorm.weight", EMBD, 0.0)
        vector(p + "post_attention_layernorm.weight", EMBD, 0.0)
        if kind == "linear_attention":
            q = p + "linear_attn."
            matrix(q + "in_proj_qkv.weight", 2 * key + inner, EMBD)
            matrix(q + "in_proj_z.weight", inner, EMBD)
            matrix(q + "in_proj_b.weight", f.value_heads, EMBD, scale=3)
            matrix(q + "in_proj_a.weight", f.value_heads, EMBD, scale=3)
            matrix(q + "conv1d.weight", 2 * key + inner, 1, f.width, to=np.float32)
            vector(q + "A_log", f.value_heads, -1.0)
            vector(q + "dt_bias", f.value_heads, 0.5)
            vector(q + "norm.weight", f.value_dim)
            matrix(q + "out_proj.weight", EMBD, inner)
        else:
            q = p + "self_attn."
            matrix(q + "q_proj.weight", 2 * HEADS * f.head, EMBD)
            matrix(q + "k_proj.weight", KV * f.head, EMBD)
            matrix(q + "v_proj.weight", KV * f.head, EMBD)
            matrix(q + "o_proj.weight", EMBD, HEADS * f.head)
            vector(q + "q_norm.weight", f.head, 0.0)
            vector(q + "k_norm.weight", f.head, 0.0)
        if f.experts:
            matrix(p + "mlp.gate.weight", f.experts, EMBD, to=np.float32, scale=4.0)
            matrix(p + "mlp.experts.gate_up_proj", f.experts, 2 * f.expert_ff, EMBD)
            matrix(p + "mlp.experts.down_proj", f.experts, EMBD, f.expert_ff)
            matrix(p + "mlp.shared_expert_gate.weight", 1, EMBD, to=np.float32)
        for name, n in ((("shared_expert.", f.shared),) if f.experts else (("", f.ff),)):
            matrix(p + f"mlp.{name}gate_proj.weight", n, EMBD)
            matrix(p + f"mlp.{name}up_proj.weight", n, EMBD)
            matrix(p + f"mlp.{name}down_proj.weight", EMBD, n)
    return w


# ---- the reference


def rms(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def convolve(x, kernel):
    """x: [tokens][channels]; kernel: [channels][width], the newest token last."""
    width = kernel.shape[-1]
    padded = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    return sum(padded[k:k + len(x)] * kernel[:, k] for k in range(width))


def rotate(x, theta, n):
    """The first n numbers of each head; pairs are (i, i + n / 2)."""
    a = np.arange(len(x))[:, None, None] * theta ** (-np.arange(n // 2) / (n // 2))
    low, high = x[..., :n // 2], x[..., n // 2:n]
    return np.concatenate([low * np.cos(a) - high * np.sin(a), high * np.cos(a) + low * np.sin(a), x[..., n:]], -1)


def attend(q, k, v):
    k, v = (np.repeat(y, q.shape[1] // k.shape[1], 1) for y in (k, v))
    s = np.einsum("thd,uhd->htu", q, k) / math.sqrt(q.shape[-1])
    s = np.where(np.tri(len(q), dtype=bool), s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    return np.einsum("htu,uhd->thd", s, v).reshape(len(q), -1)


def lfm2_mixture(f, w, p, x):
    scores = sigmoid(x @ w[p + "gate.weight"].T)
    chosen = np.argsort(-(scores + w[p + "expert_bias"]), -1, kind="stable")[:, :f.used]
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = scores[t, chosen[t]]
        for e, b in zip(chosen[t], by / (by.sum() + 1e-6)):
            gate, down, up = (w[p + f"experts.{e}.w{n}.weight"] for n in (1, 2, 3))
            y[t] += b * ((silu(x[t] @ gate.T) * (x[t] @ up.T)) @ down.T)
    return y


def lfm2_forward(f, w, tokens):
    x = w["embed_tokens.weight"][tokens]
    for layer, kind in enumerate(f.kinds):
        m = lambda name: w[f"layers.{layer}.{name}.weight"]  # noqa: B023, E731
        y = rms(x, m("operator_norm"))
        if kind == "conv":
            b, c, z = np.split(y @ m("conv.in_proj").T, 3, -1)
            x = x + (c * convolve(b * z, m("conv.conv")[:, 0])) @ m("conv.out_proj").T
        else:
            q, k, v = ((y @ m(f"self_attn.{n}_proj").T).reshape(len(x), -1, f.head) for n in "qkv")
            q, k = rms(q, m("self_attn.q_layernorm")), rms(k, m("self_attn.k_layernorm"))
            x = x + attend(rotate(q, f.theta, f.head), rotate(k, f.theta, f.head), v) @ m("self_attn.out_proj").T
        y = rms(x, m("ffn_norm"))
        if is_mixture(f, layer):
            x = x + lfm2_mixture(f, w, f"layers.{layer}.feed_forward.", y)
        else:
            x = x + (silu(y @ m("feed_forward.w1").T) * (y @ m("feed_forward.w3").T)) @ m("feed_forward.w2").T
    return rms(x, w["embedding_norm.weight"]) @ w["embed_tokens.weight"].T


def delta_net(f, m, a_log, dt_bias, x):
    key, inner = f.key_heads * f.key_dim, f.value_heads * f.value_dim
    qkv = silu(convolve(x @ m("in_proj_qkv").T, m("conv1d")[:, 0]))
    q, k, v = np.split(qkv, [key, 2 * key], -1)
    l2 = lambda y: y / np.sqrt((y * y).sum(-1, keepdims=True) + 1e-6)  # noqa: E731
    q, k = (np.repeat(l2(y.reshape(len(x), f.key_heads, -1)), f.value_heads // f.key_heads, 1) for y in (q, k))
    q, v = q / math.sqrt(f.key_dim), v.reshape(len(x), f.value_heads, -1)
    beta = sigmoid(x @ m("in_proj_b").T)
    g = -np.exp(a_log) * np.log1p(np.exp(x @ m("in_proj_a").T + dt_bias))
    state, out = np.zeros((f.value_heads, f.key_dim, f.value_dim)), np.zeros(v.shape)
    for t in range(len(x)):
        state *= np.exp(g[t])[:, None, None]
        n = beta[t][:, None] * (v[t] - np.einsum("hkv,hk->hv", state, k[t]))
        state += np.einsum("hk,hv->hkv", k[t], n)
        out[t] = np.einsum("hkv,hk->hv", state, q[t])
    z = silu(x @ m("in_proj_z").T)
    return (rms(out, m("norm")).reshape(len(x), inner) * z) @ m("out_proj").T


def gated_attention(f, m, x):
    q, gate = np.split((x @ m("q_proj").T).reshape(len(x), HEADS, -1), 2, -1)
    k, v = ((x @ m(f"{n}_proj").T).reshape(len(x), KV, -1) for n in "kv")
    n = f.head // 4
    q, k = rotate(rms(q, 1 + m("q_norm")), f.theta, n), rotate(rms(k, 1 + m("k_norm")), f.theta, n)
    return attend(q, k, v) * sigmoid(gate.reshape(len(x), -1)) @ m("o_proj").T


def qwen35_mixture(f, w, p, x):
    logits = x @ w[p + "gate.weight"].T
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    chosen = np.argsort(-logits, -1, kind="stable")[:, :f.used]
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = weight[t, chosen[t]]
        for e, b in zip(chosen[t], by / by.sum()):
            gate, up = np.split(w[p + "experts.gate_up_proj"][e], 2)
            y[t] += b * ((silu(x[t] @ gate.T) * (x[t] @ up.T)) @ w[p + "experts.down_proj"][e].T)
    return y + sigmoid(x @ w[p + "shared_expert_gate.weight"].T) * dense(w, p + "shared_expert.", x)


def dense(w, p, x):
    gate, up, down = (w[p + f"{n}_proj.weight"] for n in ("gate", "up", "down"))
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def qwen35_forward(f, w, tokens):
    x = w["embed_tokens.weight"][tokens]
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        y = rms(x, 1 + w[p + "input_layernorm.weight"])
        if kind == "linear_attention":
            q = p + "linear_attn."
            x = x + delta_net(f, lambda n: w[q + n + ".weight"], w[q + "A_log"], w[q + "dt_bias"], y)  # noqa: B023
        else:
            x = x + gated_attention(f, lambda n: w[p + f"self_attn.{n}.weight"], y)  # noqa: B023
        y = rms(x, 1 + w[p + "post_attention_layernorm.weight"])
        x = x + (qwen35_mixture if f.experts else lambda _, *rest: dense(*rest))(f, w, p + "mlp.", y)
    return rms(x, 1 + w["norm.weight"]) @ w["lm_head.weight"].T


# ---- the files

LFM2_NAMES = {"operator_norm": "attn_norm", "ffn_norm": "ffn_norm", "conv.conv": "shortconv.conv",
              "conv.in_proj": "shortconv.in_proj", "conv.out_proj": "shortconv.out_proj", "self_attn.q_proj": "attn_q",
              "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output",
              "self_attn.q_layernorm": "attn_q_norm", "self_attn.k_layernorm": "attn_k_norm", "feed_forward.w1": "ffn_gate",
              "feed_forward.w2": "ffn_down", "feed_forward.w3": "ffn_up", "feed_forward.gate": "ffn_gate_inp"}


def is_float32(x, name):
    return x.ndim == 1 or name.endswith(("conv.weight", "conv1d.weight", ".gate.weight", "_expert_gate.weight", "gate_inp.weight",
                                         "router.layer.weight", "ssm_a", "ssm_d", "ssm_norm.weight"))


def lfm2_tensors(f, w):
    """By the names of GGUF."""
    yield "token_embd.weight", w["embed_tokens.weight"]
    yield "token_embd_norm.weight", w["embedding_norm.weight"]
    for name, x in w.items():
        if not name.startswith("layers.") or ".experts." in name:
            continue
        _, layer, rest = name.split(".", 2)
        if rest == "feed_forward.expert_bias":
            yield f"blk.{layer}.exp_probs_b.bias", x
        else:
            yield f"blk.{layer}.{LFM2_NAMES[rest.removesuffix('.weight')]}.weight", x.reshape(len(x), -1) if x.ndim == 3 else x
    for layer in (i for i in range(len(f.kinds)) if is_mixture(f, i)):
        for n, to in ((1, "gate"), (2, "down"), (3, "up")):
            yield f"blk.{layer}.ffn_{to}_exps.weight", np.stack(
                [w[f"layers.{layer}.feed_forward.experts.{e}.w{n}.weight"] for e in range(f.experts)])


def lfm2_keys(g, f):
    g.add_head_count_kv([0 if kind == "conv" else KV for kind in f.kinds])
    g.add_uint32(f"{f.arch}.shortconv.l_cache", f.width)
    if f.experts:
        g.add_expert_count(f.experts)
        g.add_expert_used_count(f.used)
        g.add_expert_feed_forward_length(f.expert_ff)
        g.add_leading_dense_block_count(f.dense)
        g.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def lfm2_config(f):
    c = {"model_type": getattr(f, "type", f.arch), "intermediate_size": f.ff, "layer_types": f.kinds, "conv_L_cache": f.width,
         "conv_bias": False, "norm_eps": EPS, "block_auto_adjust_ff_dim": False, "rope_theta": f.theta}
    if f.experts:
        c |= {"num_experts": f.experts, "num_experts_per_tok": f.used, "moe_intermediate_size": f.expert_ff,
              "num_dense_layers": f.dense, "norm_topk_prob": True, "use_expert_bias": True, "routed_scaling_factor": 1.0}
    return c


QWEN35_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
                "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate", "linear_attn.in_proj_b": "ssm_beta",
                "linear_attn.in_proj_a": "ssm_alpha", "linear_attn.conv1d": "ssm_conv1d", "linear_attn.norm": "ssm_norm",
                "linear_attn.out_proj": "ssm_out", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
                "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
                "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
                "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
                "mlp.shared_expert.down_proj": "ffn_down_shexp"}


def tiled(f, x, dim, first=0):
    """As llama.cpp's converter orders value heads along an axis: those of the first place of each key head, then the others.
    dim: numbers of a head; what stands before first stays."""
    each = f.value_heads // f.key_heads
    order = [k * each + i for i in range(each) for k in range(f.key_heads)]
    rest = x[first:].reshape(f.value_heads, dim, -1)[order].reshape(x[first:].shape)
    return np.concatenate([x[:first], rest])


def qwen35_tensors(f, w):
    """By the names of GGUF: norms hold the sum with 1, decays -e^A, value heads are tiled."""
    key = 2 * f.key_heads * f.key_dim
    yield "token_embd.weight", w["embed_tokens.weight"]
    yield "output.weight", w["lm_head.weight"]
    yield "output_norm.weight", 1 + w["norm.weight"]
    for name, x in w.items():
        if not name.startswith("layers."):
            continue
        _, layer, rest = name.split(".", 2)
        rest = rest.removesuffix(".weight")
        b = f"blk.{layer}."
        if rest == "linear_attn.A_log":
            yield b + "ssm_a", tiled(f, -np.exp(x), 1)
        elif rest == "linear_attn.dt_bias":
            yield b + "ssm_dt.bias", tiled(f, x, 1)
        elif rest == "mlp.experts.gate_up_proj":
            yield b + "ffn_gate_exps.weight", x[:, :f.expert_ff]
            yield b + "ffn_up_exps.weight", x[:, f.expert_ff:]
        elif rest == "mlp.experts.down_proj":
            yield b + "ffn_down_exps.weight", x
        else:
            if rest in ("linear_attn.in_proj_qkv", "linear_attn.conv1d"):
                x = tiled(f, x.reshape(len(x), -1), f.value_dim, key)
            elif rest == "linear_attn.in_proj_z":
                x = tiled(f, x, f.value_dim)
            elif rest in ("linear_attn.in_proj_b", "linear_attn.in_proj_a"):
                x = tiled(f, x, 1)
            elif rest == "linear_attn.out_proj":
                x = tiled(f, x.T, f.value_dim).T
            elif rest.endswith("norm") and rest != "linear_attn.norm":
                x = 1 + x
            elif rest == "mlp.shared_expert_gate":
                x = x.reshape(-1)
            yield f"{b}{QWEN35_NAMES[rest]}.weight", x


def qwen35_keys(g, f):
    g.add_head_count_kv(KV)
    g.add_key_length(f.head)
    g.add_value_length(f.head)
    g.add_rope_dimension_count(f.head // 4)
    g.add_rope_dimension_sections([1, 1, 0, 0])  # of positions of text, all are alike
    for key, v in (("ssm.conv_kernel", f.width), ("ssm.state_size", f.key_dim), ("ssm.group_count", f.key_heads),
                   ("ssm.time_step_rank", f.value_heads), ("ssm.inner_size", f.value_heads * f.value_dim),
                   ("full_attention_interval", 4)):
        g.add_uint32(f"{f.arch}.{key}", v)
    if f.experts:
        g.add_expert_count(f.experts)
        g.add_expert_used_count(f.used)
        g.add_expert_feed_forward_length(f.expert_ff)
        g.add_expert_shared_feed_forward_length(f.shared)


def qwen35_config(f):
    c = {"model_type": f.type, "intermediate_size": f.ff, "head_dim": f.head, "layer_types": f.kinds, "rms_norm_eps": EPS,
         "linear_conv_kernel_dim": f.width, "linear_num_key_heads": f.key_heads, "linear_num_value_heads": f.value_heads,
         "linear_key_head_dim": f.key_dim, "linear_value_head_dim": f.value_dim, "tie_word_embeddings": False,
         "hidden_act": "silu", "rope_parameters": {"rope_type": "default", "rope_theta": f.theta, "partial_rotary_factor": 0.25}}
    if f.experts:
        c |= {"num_experts": f.experts, "num_experts_per_tok": f.used, "moe_intermediate_size": f.expert_ff,
              "shared_expert_intermediate_size": f.shared}
    return c


LFM2 = (lfm2_weights, lfm2_forward, lfm2_tensors, lfm2_keys, lfm2_config)
QWEN35 = (qwen35_weights, qwen35_forward, qwen35_tensors, qwen35_keys, qwen35_config)


def write_gguf(path, name, f, tensors, keys, vocabulary=()):
    """vocabulary: fields of another file."""
    g = gguf.GGUFWriter(path, f.arch)
    for field in vocabulary:
        if field.name.startswith("tokenizer."):
            g.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    g.add_name(f"tiny random {name}")
    g.add_context_length(MAX)
    g.add_embedding_length(EMBD)
    g.add_block_count(len(f.kinds))
    g.add_feed_forward_length(getattr(f, "ff_of_layers", f.ff))
    g.add_head_count(HEADS)
    g.add_layer_norm_rms_eps(EPS)
    g.add_rope_freq_base(f.theta)
    keys(g, f)
    for tensor, x in tensors:
        g.add_tensor(tensor, np.ascontiguousarray(x, np.float32 if is_float32(x, tensor) else np.float16))
    finish_gguf(g)


def write_folder(folder, f, w, config):
    folder.mkdir(exist_ok=True)
    prefix = getattr(f, "prefix", "model.")
    write_safetensors(folder / "model.safetensors", {name if name.startswith("lm_head") else prefix + name:
                                                     x.astype(np.float32 if is_float32(x, name) else np.float16) for name, x in w.items()})
    config = {"architectures": [f.cls], "vocab_size": VOCAB, "hidden_size": EMBD, "num_hidden_layers": len(f.kinds),
              "num_attention_heads": HEADS, "num_key_value_heads": KV, "max_position_embeddings": MAX, "torch_dtype": "float16",
              **config}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def parts(f):
    return LFM2 if f.arch.startswith("lfm2") else QWEN35


def write_model(path, name, f, parts, seed, vocabulary):
    """One for servers: with a vocabulary, in one file. parts: as write_all has them, of f."""
    weights, _, tensors, keys, _ = parts
    write_gguf(path, name, f, tensors(f, weights(f, np.random.default_rng(seed))), keys, vocabulary)


def write_all(families, parts_of, seed):
    """The files of the families that the command line names, or all. parts_of(f): its weights(f, rng), forward(f, w, tokens),
    tensors(f, w), keys(writer, f) and config(f)."""
    for i, (name, f) in enumerate(families.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        rng = np.random.default_rng(seed + i)
        weights, forward, tensors, keys, config = parts_of(f)
        w = weights(f, rng)
        tokens = rng.integers(0, VOCAB, TOKENS)
        logits = forward(f, w, tokens)
        write_gguf(OUT / f"{name}.gguf", name, f, tensors(f, w), keys)
        write_folder(OUT / name, f, w, config(f))
        write_logits(OUT / f"{name}.bin", tokens, logits)
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    write_all(FAMILIES, parts, 170)
