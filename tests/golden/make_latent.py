"""Tiny random models with latent attention (DeepSeek V2 and V3, GLM-4.7-Flash), and their logits in float64.

    python tests/golden/make_latent.py            # needs gguf, numpy

Writes NAME.gguf and NAME.bin into tests/golden/families/, in the format of make_families.py; of some also the folder NAME, as the
models are published:

    deepseek2      as V2 Lite: q by one matrix, softmax, weights as they are, a dense layer first, YaRN; K and V by tensors of heads
    deepseek2v2    as V2: q through a latent, experts of the groups with the largest probability
    deepseek3      as V3: sigmoids, a bias that chooses, groups by their two best, more heads than one task of attention has; one
                   matrix for K and V, as converters before 2025-04 wrote it; in the folder a block for further tokens
    glm4lite       as GLM-4.7-Flash: one group, no YaRN, another epsilon than that of the latents' norms
    deepseek2q8    as deepseek2, of Q8_0, and
    deepseek2old   the same with one matrix for K and V, which is turned while it is loaded

The reference is plain numpy by the names of Hugging Face, and attention as the papers define it: K and V of every head made of
the latents (the engine absorbs these matrices into q and the output). check_transformers.py compares the folders with transformers.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np

from golden_files import finish_gguf, write_logits, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, TOKENS, THETA, LATENT_EPS = 96, 64, 60, 1e4, 1e-6
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def family(kind, cls, **more):
    """nope, rope, v: columns of a head; q_rank 0: one matrix; mscale 0: no YaRN; old: K and V in one matrix in GGUF."""
    return SimpleNamespace(**dict(type=kind, cls=cls, layers=3, heads=4, nope=24, rope=16, v=24, q_rank=0, kv_rank=32, ff=32,
                                  dense=96, experts=8, used=3, shared=2, norm=False, scale=1.0, sigmoid=False, groups=1,
                                  groups_used=1, eps=1e-6, mscale=0.0, factor=8.0, original=32, old=False, q8=False,
                                  folder=True) | more)


V2 = dict(kind="deepseek_v2", cls="DeepseekV2ForCausalLM", mscale=0.707)
WIDE = dict(nope=32, v=32, q8=True, folder=False)  # whole blocks of Q8_0
FAMILIES = {
    "deepseek2": family(**V2),
    "deepseek2v2": family(**V2, q_rank=24, groups=4, groups_used=2, scale=4.0),
    "deepseek3": family("deepseek_v3", "DeepseekV3ForCausalLM", layers=2, heads=26, nope=16, v=24, q_rank=24, shared=1, norm=True,
                        scale=2.5, sigmoid=True, groups=4, groups_used=2, mscale=1.0, old=True),
    "glm4lite": family("glm4_moe_lite", "Glm4MoeLiteForCausalLM", layers=2, heads=5, q_rank=24, shared=1, norm=True, scale=1.8,
                       sigmoid=True, eps=1e-5),
    "deepseek2q8": family(**V2 | WIDE),
    "deepseek2old": family(**V2 | WIDE, old=True),
}


def rounded(x):
    """Numbers that Q8_0 holds exactly."""
    return gguf.quants.dequantize(gguf.quants.quantize(x.astype(np.float32), Q8_0), Q8_0)


def weights(f, rng):
    """By the names of Hugging Face; numbers that the file holds exactly: F16 or Q8_0, and F32 of vectors and routers."""
    w = {}

    def matrix(name, *shape, scale=1.5):
        x = rng.uniform(-1, 1, shape) * (scale / math.sqrt(shape[-1]))
        w[name] = (rounded(x) if f.q8 else np.float16(x)).astype(np.float64)

    def vector(name, n, at=1.0):
        w[name] = np.float32(at + 0.3 * rng.uniform(-1, 1, n)).astype(np.float64)

    def three(name, n):
        matrix(name + "gate_proj", n, EMBD)
        matrix(name + "up_proj", n, EMBD)
        matrix(name + "down_proj", EMBD, n)

    matrix("embed_tokens", VOCAB, EMBD, scale=math.sqrt(EMBD))
    matrix("lm_head", VOCAB, EMBD)
    vector("norm", EMBD)
    for layer in range(f.layers):
        p = f"layers.{layer}."
        vector(p + "input_layernorm", EMBD)
        vector(p + "post_attention_layernorm", EMBD)
        a, q = p + "self_attn.", f.heads * (f.nope + f.rope)
        if f.q_rank:
            matrix(a + "q_a_proj", f.q_rank, EMBD)
            vector(a + "q_a_layernorm", f.q_rank)
            matrix(a + "q_b_proj", q, f.q_rank)
        else:
            matrix(a + "q_proj", q, EMBD)
        matrix(a + "kv_a_proj_with_mqa", f.kv_rank + f.rope, EMBD)
        vector(a + "kv_a_layernorm", f.kv_rank)
        matrix(a + "kv_b_proj", f.heads * (f.nope + f.v), f.kv_rank)
        matrix(a + "o_proj", EMBD, f.heads * f.v)
        if f.q8 and not f.old:  # the file has K's part the other way round
            k = w[a + "kv_b_proj"].reshape(f.heads, -1, f.kv_rank)[:, :f.nope]
            k[:] = rounded(k.swapaxes(1, 2)).swapaxes(1, 2)
        if layer == 0:
            three(p + "mlp.", f.dense)
            continue
        w[p + "mlp.gate"] = np.float32(rng.uniform(-0.5, 0.5, (f.experts, EMBD))).astype(np.float64)
        if f.sigmoid:
            vector(p + "mlp.gate.e_score_correction_bias", f.experts, 0.0)
        for e in range(f.experts):
            three(p + f"mlp.experts.{e}.", f.ff)
        three(p + "mlp.shared_experts.", f.shared * f.ff)
    return w


# ---- the reference


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated(w, p, x):
    g = x @ w[p + "gate_proj"].T
    return g * sigmoid(g) * (x @ w[p + "up_proj"].T) @ w[p + "down_proj"].T


def frequencies(f):
    """YaRN's: Peng et al., section 3.2, with 32 and 1 turns."""
    n = f.rope
    own = THETA ** (-np.arange(0, n, 2) / n)
    if not f.mscale:
        return own
    turns = [n * math.log(f.original / (t * 2 * math.pi)) / (2 * math.log(THETA)) for t in (32, 1)]
    low, high = max(math.floor(turns[0]), 0), min(math.ceil(turns[1]), n - 1)
    ramp = np.clip((np.arange(n // 2) - low) / max(high - low, 0.001), 0, 1)
    return own / f.factor * ramp + own * (1 - ramp)


def rotate(x, freqs):
    """x: [tokens][heads][rope], pairs of neighbours. With one mscale for all the factor of cosines is 1."""
    a = np.arange(len(x))[:, None, None] * freqs
    y = np.empty_like(x)
    y[..., ::2] = x[..., ::2] * np.cos(a) - x[..., 1::2] * np.sin(a)
    y[..., 1::2] = x[..., ::2] * np.sin(a) + x[..., 1::2] * np.cos(a)
    return y


def attention(f, w, p, x):
    n, freqs = len(x), frequencies(f)
    if f.q_rank:
        q = rms(x @ w[p + "q_a_proj"].T, w[p + "q_a_layernorm"], LATENT_EPS) @ w[p + "q_b_proj"].T
    else:
        q = x @ w[p + "q_proj"].T
    q = q.reshape(n, f.heads, -1)
    row = x @ w[p + "kv_a_proj_with_mqa"].T
    latent = rms(row[:, :f.kv_rank], w[p + "kv_a_layernorm"], LATENT_EPS)
    kv = (latent @ w[p + "kv_b_proj"].T).reshape(n, f.heads, -1)
    shared = np.repeat(rotate(row[:, None, f.kv_rank:], freqs), f.heads, 1)
    k, v = np.concatenate([kv[..., :f.nope], shared], -1), kv[..., f.nope:]
    q = np.concatenate([q[..., :f.nope], rotate(q[..., f.nope:], freqs)], -1)
    scale = (f.nope + f.rope) ** -0.5 * (0.1 * f.mscale * math.log(f.factor) + 1) ** 2
    s = np.einsum("thd,uhd->htu", q, k) * scale
    s = np.where(np.tri(n, dtype=bool), s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    return np.einsum("htu,uhd->thd", s, v).reshape(n, -1) @ w[p + "o_proj"].T


def route(f, w, p, x):
    """The chosen experts of a row, and their weights."""
    logits = x @ w[p + "gate"].T
    score = sigmoid(logits) if f.sigmoid else np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    by = score + (w[p + "gate.e_score_correction_bias"] if f.sigmoid else 0)
    groups = np.sort(by.reshape(f.groups, -1), -1)
    best = groups[:, -2:].sum(-1) if f.sigmoid else groups[:, -1]
    kept = np.argsort(-best, kind="stable")[:f.groups_used]
    by = np.where(np.isin(np.arange(f.experts) // (f.experts // f.groups), kept), by, -np.inf)
    chosen = np.argsort(-by, kind="stable")[:f.used]
    weight = score[chosen]
    return chosen, f.scale * (weight / weight.sum() if f.norm else weight)


def feed_forward(f, w, p, x):
    if p + "gate_proj" in w:
        return gated(w, p, x)
    y = gated(w, p + "shared_experts.", x)
    for t in range(len(x)):
        for e, by in zip(*route(f, w, p, x[t])):
            y[t] += by * gated(w, p + f"experts.{e}.", x[t])
    return y


def forward(f, w, tokens):
    x = w["embed_tokens"][tokens]
    for layer in range(f.layers):
        p = f"layers.{layer}."
        x = x + attention(f, w, p + "self_attn.", rms(x, w[p + "input_layernorm"], f.eps))
        x = x + feed_forward(f, w, p + "mlp.", rms(x, w[p + "post_attention_layernorm"], f.eps))
    return rms(x, w["norm"], f.eps) @ w["lm_head"].T


# ---- the files

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "q_proj": "attn_q", "q_a_proj": "attn_q_a",
         "q_a_layernorm": "attn_q_a_norm", "q_b_proj": "attn_q_b", "kv_a_proj_with_mqa": "attn_kv_a_mqa",
         "kv_a_layernorm": "attn_kv_a_norm", "kv_b_proj": "attn_kv_b", "o_proj": "attn_output", "gate": "ffn_gate_inp",
         "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
ENDS = {"embed_tokens": "token_embd.weight", "lm_head": "output.weight", "norm": "output_norm.weight"}


def stored(name, x):
    return x.astype(np.float32 if x.ndim == 1 or name.endswith("mlp.gate") else np.float16)


def tensors(f, w):
    for name, x in w.items():
        if name in ENDS:
            yield ENDS[name], x
            continue
        _, layer, _, *rest = name.split(".", 3)
        rest, at = rest[0] if rest else name.split(".")[2], f"blk.{layer}."
        if rest == "gate.e_score_correction_bias":
            yield at + "exp_probs_b.bias", x
        elif rest.startswith("experts.0."):  # all experts in one tensor
            part = rest.removeprefix("experts.0.")
            every = [w[name.replace("experts.0.", f"experts.{e}.")] for e in range(f.experts)]
            yield at + NAMES[part] + "_exps.weight", np.stack(every)
        elif rest.startswith("shared_experts."):
            yield at + NAMES[rest.removeprefix("shared_experts.")] + "_shexp.weight", x
        elif rest == "kv_b_proj" and not f.old:
            k, v = np.split(x.reshape(f.heads, -1, f.kv_rank), [f.nope], 1)
            yield at + "attn_k_b.weight", np.ascontiguousarray(k.swapaxes(1, 2))
            yield at + "attn_v_b.weight", np.ascontiguousarray(v)
        elif not rest.startswith("experts."):
            yield at + NAMES[rest] + ".weight", x


def write_gguf(path, f, w):
    g = gguf.GGUFWriter(path, "deepseek2")
    row = f.kv_rank + f.rope
    g.add_name(f"tiny random {f.type}")
    g.add_context_length(256)
    g.add_embedding_length(EMBD)
    g.add_block_count(f.layers)
    g.add_feed_forward_length(f.dense)
    g.add_head_count(f.heads)
    g.add_layer_norm_rms_eps(f.eps)
    g.add_rope_freq_base(THETA)
    g.add_rope_dimension_count(f.rope)
    g.add_kv_lora_rank(f.kv_rank)
    if f.q_rank:
        g.add_q_lora_rank(f.q_rank)
    g.add_head_count_kv(f.heads if f.old else 1)
    g.add_key_length(f.nope + f.rope if f.old else row)
    g.add_value_length(f.v if f.old else f.kv_rank)
    if not f.old:
        g.add_key_length_mla(f.nope + f.rope)
        g.add_value_length_mla(f.v)
    g.add_leading_dense_block_count(1)
    g.add_expert_count(f.experts)
    g.add_expert_used_count(f.used)
    g.add_expert_shared_count(f.shared)
    g.add_expert_feed_forward_length(f.ff)
    g.add_expert_weights_scale(f.scale)
    g.add_expert_weights_norm(f.norm)
    if f.sigmoid:
        g.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if f.groups > 1:
        g.add_expert_group_count(f.groups)
        g.add_expert_group_used_count(f.groups_used)
    if f.mscale:
        g.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        g.add_rope_scaling_factor(f.factor)
        g.add_rope_scaling_orig_ctx_len(f.original)
        g.add_rope_scaling_yarn_log_mul(0.1 * f.mscale)
    for name, x in tensors(f, w):
        small = x.ndim == 1 or "ffn_gate_inp" in name
        if f.q8 and not small:
            g.add_tensor(name, gguf.quants.quantize(x.astype(np.float32), Q8_0), raw_dtype=Q8_0)
        else:
            g.add_tensor(name, x.astype(np.float32 if small else np.float16))
    finish_gguf(g)


def write_folder(name, f, w):
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    named = {}
    for key, x in w.items():
        full = key if key == "lm_head" else f"model.{key}"
        named[full if full.endswith("bias") else full + ".weight"] = stored(key, x)
    if f.type == "deepseek_v3":
        named[f"model.layers.{f.layers}.eh_proj.weight"] = np.zeros((EMBD, 2 * EMBD), np.float16)
    write_safetensors(folder / "model.safetensors", named)
    method = "noaux_tc" if f.sigmoid else "group_limited_greedy" if f.groups > 1 else "greedy"
    c = dict(architectures=[f.cls], model_type=f.type, hidden_size=EMBD, num_hidden_layers=f.layers, num_attention_heads=f.heads,
             num_key_value_heads=f.heads, intermediate_size=f.dense, moe_intermediate_size=f.ff, vocab_size=VOCAB,
             max_position_embeddings=256, rms_norm_eps=f.eps, tie_word_embeddings=False, torch_dtype="float16", hidden_act="silu",
             q_lora_rank=f.q_rank or None, kv_lora_rank=f.kv_rank, qk_nope_head_dim=f.nope, qk_rope_head_dim=f.rope,
             v_head_dim=f.v, first_k_dense_replace=1, n_routed_experts=f.experts, n_shared_experts=f.shared,
             num_experts_per_tok=f.used, n_group=f.groups, topk_group=f.groups_used, topk_method=method, norm_topk_prob=f.norm,
             routed_scaling_factor=f.scale, scoring_func="sigmoid" if f.sigmoid else "softmax", rope_theta=THETA)
    if f.type == "glm4_moe_lite":
        c |= dict(mlp_layer_types=["dense"] + ["sparse"] * (f.layers - 1))
    if f.type == "deepseek_v3":
        c |= dict(num_nextn_predict_layers=1)
    if f.mscale:
        c |= dict(rope_scaling=dict(type="yarn", factor=f.factor, original_max_position_embeddings=f.original, beta_fast=32,
                                    beta_slow=1, mscale=f.mscale, mscale_all_dim=f.mscale))
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")


def main():
    OUT.mkdir(exist_ok=True)
    for name, f in FAMILIES.items():
        rng = np.random.default_rng(7)
        w = weights(f, rng)
        tokens = rng.integers(0, VOCAB, TOKENS)
        logits = forward(f, w, tokens)
        write_gguf(OUT / f"{name}.gguf", f, w)
        if f.folder:
            write_folder(name, f, w)
        write_logits(OUT / f"{name}.bin", tokens, logits)
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
