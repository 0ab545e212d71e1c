"""Tiny random models with Mamba-2, and their logits by plain formulas in float64.

    python tests/golden/make_mamba2.py [NAME ...]

Writes NAME.gguf, NAME.bin and the folder NAME into tests/golden/families/, as make_hybrids.py does, for granitehybrid (experts,
two groups), granite4-dense (rotated), nemotron_h and nemotron_h_moe (experts in a narrower stream). The formulas are those
of transformers' modeling_granitemoehybrid.py and modeling_nemotron_h.py: whole sequences, convolutions as sums over the positions
before, the selective scan token by token. Needs numpy and gguf.
check_transformers.py compares the folders with transformers.
"""

import math
from types import SimpleNamespace

import numpy as np

from make_hybrids import EMBD, EPS, HEADS, KV, attend, convolve, random, rms, rotate, sigmoid, silu, write_all
import make_hybrids

SCALES = {"embedding_multiplier": 3.0, "residual_multiplier": 0.75, "attention_multiplier": 0.25, "logits_scaling": 2.0}
FAMILIES = {
    "granitehybrid": SimpleNamespace(arch="granitehybrid", cls="GraniteMoeHybridForCausalLM", kinds=["mamba", "attention", "mamba"],
                                     ff=32, width=4, head=16, theta=1e4, heads=8, head_dim=16, groups=2, state=16, experts=8, used=3,
                                     shared=64, rotated=False),
    "granite4-dense": SimpleNamespace(arch="granitehybrid", cls="GraniteMoeHybridForCausalLM",
                                           kinds=["mamba", "mamba", "attention"], ff=96, width=4, head=16, theta=1e4, heads=12,
                                           head_dim=32, groups=1, state=24, experts=0, shared=96, rotated=True),
    "nemotron_h": SimpleNamespace(arch="nemotron_h", cls="NemotronHForCausalLM", kinds=["mamba", "mlp", "attention", "mlp", "mamba"],
                                  ff=96, width=4, head=32, theta=1e4, heads=8, head_dim=16, groups=2, state=16, experts=0,
                                  prefix="backbone."),
    "nemotron_h_moe": SimpleNamespace(arch="nemotron_h_moe", cls="NemotronHForCausalLM", kinds=["mamba", "moe", "attention", "mlp", "mamba"],
                                      ff=96, width=4, head=16, theta=1e4, heads=6, head_dim=32, groups=2, state=40, experts=8, used=3,
                                      expert_ff=64, shared=96, latent=32, scale=2.5, prefix="backbone."),
}
for nemotron in ("nemotron_h", "nemotron_h_moe"):
    FAMILIES[nemotron].ff_of_layers = [{"mlp": FAMILIES[nemotron].ff, "moe": getattr(FAMILIES[nemotron], "expert_ff", 0)}.get(k, 0)
                                       for k in FAMILIES[nemotron].kinds]


def is_granite(f):
    return f.arch == "granitehybrid"


# ---- weights by the names of Hugging Face


def mixer_weights(f, kind, p, q, matrix, vector):
    """p: of a mixer with Mamba-2, q: of one with attention."""
    inner, channels = f.heads * f.head_dim, f.heads * f.head_dim + 2 * f.groups * f.state
    if kind == "mamba":
        matrix(p + "in_proj.weight", inner + channels + f.heads, EMBD)
        matrix(p + "conv1d.weight", channels, 1, f.width, to=np.float32)
        vector(p + "conv1d.bias", channels, 0.0)
        vector(p + "A_log", f.heads, 0.0)
        vector(p + "D", f.heads)
        vector(p + "dt_bias", f.heads, -2.0)
        vector(p + "norm.weight", inner)
        matrix(p + "out_proj.weight", EMBD, inner)
    if kind == "attention":
        for name, heads in (("q", HEADS), ("k", KV), ("v", KV)):
            matrix(q + f"{name}_proj.weight", heads * f.head, EMBD)
        matrix(q + "o_proj.weight", EMBD, HEADS * f.head)


def granite_weights(f, rng):
    w, matrix, vector = random(rng)
    matrix("embed_tokens.weight", make_hybrids.VOCAB, EMBD, scale=math.sqrt(EMBD) / 4)
    vector("norm.weight", EMBD)
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        vector(p + "input_layernorm.weight", EMBD)
        vector(p + "post_attention_layernorm.weight", EMBD)
        mixer_weights(f, kind, p + "mamba.", p + "self_attn.", matrix, vector)
        if f.experts:
            matrix(p + "block_sparse_moe.router.layer.weight", f.experts, EMBD, to=np.float32, scale=4.0)
            matrix(p + "block_sparse_moe.input_linear.weight", f.experts, 2 * f.ff, EMBD)
            matrix(p + "block_sparse_moe.output_linear.weight", f.experts, EMBD, f.ff)
        matrix(p + "shared_mlp.input_linear.weight", 2 * f.shared, EMBD)
        matrix(p + "shared_mlp.output_linear.weight", EMBD, f.shared)
    return w


def nemotron_weights(f, rng):
    w, matrix, vector = random(rng)
    matrix("embeddings.weight", make_hybrids.VOCAB, EMBD, scale=math.sqrt(EMBD))
    matrix("lm_head.weight", make_hybrids.VOCAB, EMBD)
    vector("norm_f.weight", EMBD)
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        vector(p + "norm.weight", EMBD)
        p += "mixer."
        mixer_weights(f, kind, p, p, matrix, vector)
        if kind == "mlp":
            matrix(p + "up_proj.weight", f.ff, EMBD)
            matrix(p + "down_proj.weight", EMBD, f.ff)
        if kind != "moe":
            continue
        matrix(p + "gate.weight", f.experts, EMBD, to=np.float32, scale=4.0)
        vector(p + "gate.e_score_correction_bias", f.experts, 0.0)
        matrix(p + "fc1_latent_proj.weight", f.latent, EMBD)
        matrix(p + "fc2_latent_proj.weight", EMBD, f.latent)
        for e in range(f.experts):
            matrix(p + f"experts.{e}.up_proj.weight", f.expert_ff, f.latent)
            matrix(p + f"experts.{e}.down_proj.weight", f.latent, f.expert_ff)
        matrix(p + "shared_experts.up_proj.weight", f.shared, EMBD)
        matrix(p + "shared_experts.down_proj.weight", EMBD, f.shared)
    return w


# ---- the reference


def mamba2(f, w, p, y):
    t, inner, keys = len(y), f.heads * f.head_dim, f.groups * f.state
    z, xbc, dt = np.split(y @ w[p + "in_proj.weight"].T, [inner, 2 * inner + 2 * keys], -1)
    xbc = silu(convolve(xbc, w[p + "conv1d.weight"][:, 0]) + w[p + "conv1d.bias"])
    x, b, c = np.split(xbc, [inner, inner + keys], -1)
    x = x.reshape(t, f.heads, f.head_dim)
    b, c = (np.repeat(v.reshape(t, f.groups, f.state), f.heads // f.groups, 1) for v in (b, c))
    dt = np.log1p(np.exp(dt + w[p + "dt_bias"]))
    decay = np.exp(-np.exp(w[p + "A_log"]) * dt)
    state, out = np.zeros((f.heads, f.head_dim, f.state)), np.zeros_like(x)
    for i in range(t):
        state = decay[i][:, None, None] * state + np.einsum("h,hd,hn->hdn", dt[i], x[i], b[i])
        out[i] = np.einsum("hdn,hn->hd", state, c[i]) + w[p + "D"][:, None] * x[i]
    gated = (out.reshape(t, inner) * silu(z)).reshape(t, f.groups, -1)
    return rms(gated, 1.0).reshape(t, inner) * w[p + "norm.weight"] @ w[p + "out_proj.weight"].T


def attention(f, w, p, y, scale):
    """scale: of the scores."""
    q, k, v = ((y @ w[p + f"{n}_proj.weight"].T).reshape(len(y), -1, f.head) for n in "qkv")
    if getattr(f, "rotated", False):
        q, k = rotate(q, f.theta, f.head), rotate(k, f.theta, f.head)
    return attend(q * (scale * math.sqrt(f.head)), k, v) @ w[p + "o_proj.weight"].T


def glu(x, both, down):
    gate, up = np.split(x @ both.T, 2, -1)
    return (silu(gate) * up) @ down.T


def granite_mixture(f, w, p, x):
    logits = x @ w[p + "router.layer.weight"].T
    chosen = np.argsort(-logits, -1, kind="stable")[:, :f.used]
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = np.exp(logits[t, chosen[t]] - logits[t].max())
        for e, b in zip(chosen[t], by / by.sum()):
            y[t] += b * glu(x[t], w[p + "input_linear.weight"][e], w[p + "output_linear.weight"][e])
    return y


def granite_forward(f, w, tokens):
    residual = SCALES["residual_multiplier"]
    x = w["embed_tokens.weight"][tokens] * SCALES["embedding_multiplier"]
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        y = rms(x, w[p + "input_layernorm.weight"])
        if kind == "mamba":
            x = x + residual * mamba2(f, w, p + "mamba.", y)
        else:
            x = x + residual * attention(f, w, p + "self_attn.", y, SCALES["attention_multiplier"])
        y = rms(x, w[p + "post_attention_layernorm.weight"])
        moe = granite_mixture(f, w, p + "block_sparse_moe.", y) if f.experts else 0
        x = x + residual * (moe + glu(y, w[p + "shared_mlp.input_linear.weight"], w[p + "shared_mlp.output_linear.weight"]))
    return rms(x, w["norm.weight"]) @ w["embed_tokens.weight"].T / SCALES["logits_scaling"]


def square(w, p, x):
    return np.maximum(x @ w[p + "up_proj.weight"].T, 0) ** 2 @ w[p + "down_proj.weight"].T


def nemotron_mixture(f, w, p, x):
    scores = sigmoid(x @ w[p + "gate.weight"].T)
    chosen = np.argsort(-(scores + w[p + "gate.e_score_correction_bias"]), -1, kind="stable")[:, :f.used]
    narrow = x @ w[p + "fc1_latent_proj.weight"].T
    y = np.zeros_like(narrow)
    for t in range(len(x)):
        by = scores[t, chosen[t]]
        for e, b in zip(chosen[t], f.scale * by / (by.sum() + 1e-20)):
            y[t] += b * square(w, p + f"experts.{e}.", narrow[t])
    return y @ w[p + "fc2_latent_proj.weight"].T + square(w, p + "shared_experts.", x)


def nemotron_forward(f, w, tokens):
    x = w["embeddings.weight"][tokens]
    for layer, kind in enumerate(f.kinds):
        p = f"layers.{layer}."
        y = rms(x, w[p + "norm.weight"])
        p += "mixer."
        if kind == "mamba":
            x = x + mamba2(f, w, p, y)
        elif kind == "attention":
            x = x + attention(f, w, p, y, 1 / math.sqrt(f.head))
        else:
            x = x + (square(w, p, y) if kind == "mlp" else nemotron_mixture(f, w, p, y))
    return rms(x, w["norm_f.weight"]) @ w["lm_head.weight"].T


# ---- the files

MAMBA_NAMES = {"in_proj.weight": "ssm_in.weight", "conv1d.weight": "ssm_conv1d.weight", "conv1d.bias": "ssm_conv1d.bias",
               "A_log": "ssm_a", "D": "ssm_d", "dt_bias": "ssm_dt.bias", "norm.weight": "ssm_norm.weight", "out_proj.weight": "ssm_out.weight"}
GRANITE_NAMES = {**{"mamba." + a: b for a, b in MAMBA_NAMES.items()}, "input_layernorm.weight": "attn_norm.weight",
                 "post_attention_layernorm.weight": "ffn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight",
                 "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
                 "self_attn.o_proj.weight": "attn_output.weight", "block_sparse_moe.router.layer.weight": "ffn_gate_inp.weight",
                 "block_sparse_moe.output_linear.weight": "ffn_down_exps.weight"}
NEMOTRON_NAMES = {**{"mixer." + a: b for a, b in MAMBA_NAMES.items()}, "norm.weight": "attn_norm.weight",
                  "mixer.q_proj.weight": "attn_q.weight", "mixer.k_proj.weight": "attn_k.weight", "mixer.v_proj.weight": "attn_v.weight",
                  "mixer.o_proj.weight": "attn_output.weight", "mixer.up_proj.weight": "ffn_up.weight",
                  "mixer.down_proj.weight": "ffn_down.weight", "mixer.gate.weight": "ffn_gate_inp.weight",
                  "mixer.gate.e_score_correction_bias": "exp_probs_b.bias", "mixer.fc1_latent_proj.weight": "ffn_latent_down.weight",
                  "mixer.fc2_latent_proj.weight": "ffn_latent_up.weight", "mixer.shared_experts.up_proj.weight": "ffn_up_shexp.weight",
                  "mixer.shared_experts.down_proj.weight": "ffn_down_shexp.weight"}


def as_gguf(f, name, x):
    """As llama.cpp's converter stores a tensor of that name of GGUF."""
    if name in ("ssm_a", "ssm_d"):
        return (-np.exp(x) if name == "ssm_a" else x).reshape(-1, 1)
    if name == "ssm_norm.weight":
        return x.reshape(f.groups, -1)
    if is_granite(f) and name in ("attn_q.weight", "attn_k.weight"):  # rotated pairs are neighbours
        return x.reshape(-1, 2, f.head // 2, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
    return x.reshape(len(x), -1) if name == "ssm_conv1d.weight" else x


def granite_tensors(f, w):
    end = "_shexp" if f.experts else ""
    yield "token_embd.weight", w["embed_tokens.weight"]
    yield "output_norm.weight", w["norm.weight"]
    for name, x in w.items():
        if not name.startswith("layers."):
            continue
        _, layer, rest = name.split(".", 2)
        b = f"blk.{layer}."
        if rest.endswith("input_linear.weight"):
            of = end if rest.startswith("shared_mlp") else "_exps"
            gate, up = np.split(x, 2, -2)
            yield f"{b}ffn_gate{of}.weight", gate
            yield f"{b}ffn_up{of}.weight", up
        elif rest == "shared_mlp.output_linear.weight":
            yield f"{b}ffn_down{end}.weight", x
        else:
            yield b + GRANITE_NAMES[rest], as_gguf(f, GRANITE_NAMES[rest], x)


def nemotron_tensors(f, w):
    yield "token_embd.weight", w["embeddings.weight"]
    yield "output.weight", w["lm_head.weight"]
    yield "output_norm.weight", w["norm_f.weight"]
    for name, x in w.items():
        if not name.startswith("layers.") or ".experts." in name:
            continue
        _, layer, rest = name.split(".", 2)
        yield f"blk.{layer}.{NEMOTRON_NAMES[rest]}", as_gguf(f, NEMOTRON_NAMES[rest], x)
    for layer in (i for i, kind in enumerate(f.kinds) if kind == "moe"):
        for n in ("up", "down"):
            yield f"blk.{layer}.ffn_{n}_exps.weight", np.stack(
                [w[f"layers.{layer}.mixer.experts.{e}.{n}_proj.weight"] for e in range(f.experts)])


def state_keys(g, f):
    g.add_head_count_kv([KV if kind == "attention" else 0 for kind in f.kinds])
    g.add_ssm_conv_kernel(f.width)
    g.add_ssm_state_size(f.state)
    g.add_ssm_group_count(f.groups)
    g.add_ssm_inner_size(f.heads * f.head_dim)
    g.add_ssm_time_step_rank(f.heads)


def granite_keys(g, f):
    state_keys(g, f)
    g.add_rope_dimension_count(f.head)
    g.add_rope_scaling_finetuned(f.rotated)
    g.add_embedding_scale(SCALES["embedding_multiplier"])
    g.add_residual_scale(SCALES["residual_multiplier"])
    g.add_attention_scale(SCALES["attention_multiplier"])
    g.add_logit_scale(SCALES["logits_scaling"])
    if f.experts:
        g.add_expert_count(f.experts)
        g.add_expert_used_count(f.used)
        g.add_expert_shared_feed_forward_length(f.shared)


def nemotron_keys(g, f):
    state_keys(g, f)
    g.add_key_length(f.head)
    g.add_value_length(f.head)
    if f.experts:
        g.add_expert_count(f.experts)
        g.add_expert_used_count(f.used)
        g.add_expert_feed_forward_length(f.expert_ff)
        g.add_expert_shared_feed_forward_length(f.shared)
        g.add_expert_shared_count(1)
        g.add_expert_weights_norm(True)
        g.add_expert_weights_scale(f.scale)
        g.add_expert_group_count(1)
        g.add_expert_group_used_count(1)


def granite_config(f):
    return {"model_type": "granitemoehybrid", "layer_types": f.kinds, "intermediate_size": f.ff, "shared_intermediate_size": f.shared,
            "num_local_experts": f.experts, "num_experts_per_tok": getattr(f, "used", 0), "mamba_n_heads": f.heads,
            "mamba_d_head": f.head_dim, "mamba_n_groups": f.groups, "mamba_d_state": f.state, "mamba_d_conv": f.width,
            "mamba_expand": f.heads * f.head_dim // EMBD, "mamba_conv_bias": True, "mamba_proj_bias": False, "attention_bias": False,
            "position_embedding_type": "rope" if f.rotated else "nope", "rope_theta": f.theta, "rms_norm_eps": EPS,
            "hidden_act": "silu", "tie_word_embeddings": True, **SCALES}


def nemotron_config(f):
    c = {"model_type": "nemotron_h", "hybrid_override_pattern": "".join({"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}[k] for k in f.kinds),
         "intermediate_size": f.ff, "head_dim": f.head, "mamba_num_heads": f.heads, "mamba_head_dim": f.head_dim, "n_groups": f.groups,
         "ssm_state_size": f.state, "conv_kernel": f.width, "expand": 2, "use_conv_bias": True, "use_bias": False, "mlp_bias": False,
         "attention_bias": False, "mamba_proj_bias": False, "mamba_hidden_act": "silu", "mlp_hidden_act": "relu2",
         "layer_norm_epsilon": EPS, "time_step_limit": [0.0, math.inf], "tie_word_embeddings": False}
    if f.experts:
        c |= {"n_routed_experts": f.experts, "num_experts_per_tok": f.used, "n_shared_experts": 1, "moe_intermediate_size": f.expert_ff,
              "moe_shared_expert_intermediate_size": f.shared, "moe_latent_size": f.latent, "n_group": 1, "topk_group": 1,
              "norm_topk_prob": True, "routed_scaling_factor": f.scale}
    return c


GRANITE = (granite_weights, granite_forward, granite_tensors, granite_keys, granite_config)
NEMOTRON = (nemotron_weights, nemotron_forward, nemotron_tensors, nemotron_keys, nemotron_config)


def parts(f):
    return GRANITE if is_granite(f) else NEMOTRON


if __name__ == "__main__":
    write_all(FAMILIES, parts, 270)
