"""Tiny random mixtures of experts, and their logits in float64.

    python tests/golden/make_mixtures.py            # needs gguf, numpy
    python tests/golden/make_mixtures.py --check    # torch and transformers too: compares the reference with them

Writes NAME.gguf and NAME.bin into tests/golden/families/, in the format of make_families.py, for mixtral (architecture
llama, whose rows of q and k are permuted in GGUF), qwen2moe and qwen3moe, granitemoe with and without a shared expert,
and glm4moe (sigmoids, groups, a dense layer before the others); of the last three also a folder as transformers has it.
The reference is plain numpy by the names of Hugging Face: no cache, every expert a matrix product. --check gives
transformers the same weights in float64.
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
VOCAB, EMBD, EPS, TOKENS = 96, 64, 1e-6, 60


def family(arch, kind, **more):
    """shared: width of the expert that all rows have, gate: by a sigmoid; rotary: the share of a head; dense: the width of
    the first layer, 0: it has experts; sigmoid: the router, with a bias; groups, groups_used: of experts."""
    return SimpleNamespace(**dict(arch=arch, type=kind, layers=2, heads=4, kv=2, hd=16, ff=32, experts=8, used=3, shared=0,
                                  gate=False, norm=True, qk_norm=False, bias=False, theta=1e4, rotary=1, dense=0,
                                  sigmoid=False, groups=0, groups_used=0, scale=1, cls=None, json={}, keys={}) | more)


GRANITE = dict(cls="GraniteMoeForCausalLM", ff=40,
               json=dict(embedding_multiplier=3.0, residual_multiplier=0.3, attention_multiplier=0.2, logits_scaling=2.0),
               keys={"embedding_scale": 3.0, "residual_scale": 0.3, "attention.scale": 0.2, "logit_scale": 2.0})
FAMILIES = {
    "mixtral": family("llama", "mixtral", ff=48),
    "qwen2moe": family("qwen2moe", "qwen2_moe", shared=40, gate=True, norm=False, bias=True),
    "qwen3moe": family("qwen3moe", "qwen3_moe", heads=6, hd=24, qk_norm=True, theta=1e6),
    "granitemoe": family("granitemoe", "granitemoe", **GRANITE),
    "granitemoeshared": family("granitemoe", "granitemoeshared", shared=48,
                               **GRANITE | dict(cls="GraniteMoeSharedForCausalLM")),
    "glm4moe": family("glm4moe", "glm4_moe", layers=3, qk_norm=True, bias=True, rotary=0.5, dense=48, shared=32,
                      sigmoid=True, groups=4, groups_used=2, scale=1.5, cls="Glm4MoeForCausalLM",
                      json=dict(attention_bias=True, use_qk_norm=True, first_k_dense_replace=1, n_shared_experts=1,
                                n_routed_experts=8, n_group=4, topk_group=2, routed_scaling_factor=1.5,
                                norm_topk_prob=True, num_nextn_predict_layers=1),
                      keys={"leading_dense_block_count": 1, "expert_shared_count": 1, "expert_gating_func": 2,
                            "expert_weights_norm": True, "expert_weights_scale": 1.5, "expert_group_count": 4,
                            "expert_group_used_count": 2}),
}


def weights(f, rng):
    """By the names of Hugging Face; numbers that the file holds exactly: F16, and F32 of vectors and routers."""
    w = {}

    def matrix(name, *shape, to=np.float16, scale=1.5):
        w[name] = to(rng.uniform(-1, 1, shape) * (scale / math.sqrt(shape[-1]))).astype(np.float64)

    def vector(name, n, at=1.0):
        w[name] = np.float32(at + 0.3 * rng.uniform(-1, 1, n)).astype(np.float64)

    matrix("embed_tokens", VOCAB, EMBD, scale=math.sqrt(EMBD))
    matrix("lm_head", VOCAB, EMBD)
    vector("norm", EMBD)
    for layer in range(f.layers):
        p = f"layers.{layer}."
        vector(p + "input_layernorm", EMBD)
        vector(p + "post_attention_layernorm", EMBD)
        for name, heads in (("q", f.heads), ("k", f.kv), ("v", f.kv)):
            matrix(p + f"self_attn.{name}_proj", heads * f.hd, EMBD)
            if f.bias:
                vector(p + f"self_attn.{name}_proj.bias", heads * f.hd, 0.0)
        matrix(p + "self_attn.o_proj", EMBD, f.heads * f.hd)
        if f.qk_norm:
            vector(p + "self_attn.q_norm", f.hd)
            vector(p + "self_attn.k_norm", f.hd)
        if layer == 0 and f.dense:
            matrix(p + "mlp.gate_proj", f.dense, EMBD)
            matrix(p + "mlp.up_proj", f.dense, EMBD)
            matrix(p + "mlp.down_proj", EMBD, f.dense)
            continue
        matrix(p + "mlp.gate", f.experts, EMBD, to=np.float32, scale=4.0)
        if f.sigmoid:
            vector(p + "mlp.gate.e_score_correction_bias", f.experts, 0.0)
        matrix(p + "mlp.experts.gate_up_proj", f.experts, 2 * f.ff, EMBD)
        matrix(p + "mlp.experts.down_proj", f.experts, EMBD, f.ff)
        if f.shared:
            matrix(p + "mlp.shared_expert.gate_proj", f.shared, EMBD)
            matrix(p + "mlp.shared_expert.up_proj", f.shared, EMBD)
            matrix(p + "mlp.shared_expert.down_proj", EMBD, f.shared)
            if f.gate:
                matrix(p + "mlp.shared_expert_gate", 1, EMBD, to=np.float32)
    return w


# ---- the reference


def rms(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated(x, gate, up, down):
    g = x @ gate.T
    return g * sigmoid(g) * (x @ up.T) @ down.T


def rotate(x, theta, share):
    n = int(x.shape[-1] * share) // 2
    a = np.arange(len(x))[:, None, None] * theta ** (-np.arange(n) / n)
    low, high, rest = x[..., :n], x[..., n:2 * n], x[..., 2 * n:]
    return np.concatenate([low * np.cos(a) - high * np.sin(a), high * np.cos(a) + low * np.sin(a), rest], -1)


def attention(f, w, p, x):
    q, k, v = ((x @ w[p + f"{n}_proj"].T + w.get(p + f"{n}_proj.bias", 0)).reshape(len(x), -1, f.hd) for n in "qkv")
    if f.qk_norm:
        q, k = rms(q, w[p + "q_norm"]), rms(k, w[p + "k_norm"])
    q, k = rotate(q, f.theta, f.rotary), rotate(k, f.theta, f.rotary)
    k, v = (np.repeat(y, f.heads // f.kv, 1) for y in (k, v))
    s = np.einsum("thd,uhd->htu", q, k) * f.json.get("attention_multiplier", f.hd ** -0.5)
    s = np.where(np.tri(len(x), dtype=bool), s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    return np.einsum("htu,uhd->thd", s, v).reshape(len(x), -1) @ w[p + "o_proj"].T


def route(f, w, p, x):
    """The weight of each expert, and the experts that are chosen."""
    logits = x @ w[p + "gate"].T
    if not f.sigmoid:
        weight = np.exp(logits - logits.max(-1, keepdims=True))
        return weight / weight.sum(-1, keepdims=True), np.argsort(-logits, -1, kind="stable")[:, :f.used]
    weight = sigmoid(logits)
    by = weight + w[p + "gate.e_score_correction_bias"]
    groups = by.reshape(len(x), f.groups, -1)
    best = np.argsort(-np.sort(groups, -1)[..., -2:].sum(-1), -1, kind="stable")[:, :f.groups_used]
    for t in range(len(x)):
        groups[t, [g for g in range(f.groups) if g not in best[t]]] = -np.inf
    return weight, np.argsort(-by, -1, kind="stable")[:, :f.used]


def mixture(f, w, p, x):
    if p + "gate_proj" in w:
        return gated(x, w[p + "gate_proj"], w[p + "up_proj"], w[p + "down_proj"])
    weight, chosen = route(f, w, p, x)
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = weight[t, chosen[t]]
        for e, b in zip(chosen[t], f.scale * (by / by.sum() if f.norm else by)):
            gate, up = np.split(w[p + "experts.gate_up_proj"][e], 2)
            y[t] += b * gated(x[t], gate, up, w[p + "experts.down_proj"][e])
    if f.shared:
        s = p + "shared_expert."
        gate = sigmoid(x @ w[p + "shared_expert_gate"].T) if f.gate else 1
        y += gate * gated(x, w[s + "gate_proj"], w[s + "up_proj"], w[s + "down_proj"])
    return y


def forward(f, w, tokens):
    x = w["embed_tokens"][tokens] * f.json.get("embedding_multiplier", 1)
    by = f.json.get("residual_multiplier", 1)
    for layer in range(f.layers):
        p = f"layers.{layer}."
        x = x + by * attention(f, w, p + "self_attn.", rms(x, w[p + "input_layernorm"]))
        x = x + by * mixture(f, w, p + "mlp.", rms(x, w[p + "post_attention_layernorm"]))
    return rms(x, w["norm"]) @ w["lm_head"].T / f.json.get("logits_scaling", 1)


# ---- the files

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.experts.down_proj": "ffn_down_exps", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
         "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
         "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.gate.e_score_correction": "exp_probs_b",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
ENDS = {"embed_tokens": "token_embd.weight", "lm_head": "output.weight", "norm": "output_norm.weight"}


def stored(f, name, x):
    router = "gate" in name.split(".")[-1] and len(x) <= f.experts and x.ndim == 2
    return x.astype(np.float32 if x.ndim == 1 or router else np.float16)


def tensors(f, w):
    for name, x in w.items():
        x = stored(f, name, x)
        if name in ENDS:
            yield ENDS[name], x
            continue
        _, layer, rest = name.split(".", 2)
        kind = "bias" if rest.endswith("bias") else "weight"
        rest = rest.removesuffix(".bias").removesuffix("_bias")
        if f.arch in ("llama", "granitemoe") and rest in ("self_attn.q_proj", "self_attn.k_proj"):  # as llama.cpp's converter permutes
            x = x.reshape(-1, 2, f.hd // 2, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
        if rest == "mlp.experts.gate_up_proj":
            yield f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(x[:, :f.ff])
            yield f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(x[:, f.ff:])
        elif rest == "mlp.shared_expert_gate":
            yield f"blk.{layer}.ffn_gate_inp_shexp.weight", x.reshape(-1)
        elif f.arch == "glm4moe" and rest == "post_attention_layernorm":
            yield f"blk.{layer}.post_attention_norm.weight", x
        else:
            yield f"blk.{layer}.{NAMES[rest]}.{kind}", x


def published(f, w):
    """Tensors as the models are published: one for each expert (glm4_moe, which has a block for further tokens, too), or one
    of all."""
    if f.type == "glm4_moe":
        yield f"model.layers.{f.layers}.eh_proj.weight", np.zeros((EMBD, 2 * EMBD), np.float16)
        yield f"model.layers.{f.layers}.self_attn.o_proj.weight", np.zeros((EMBD, f.heads * f.hd), np.float16)
    for name, x in w.items():
        x, full = stored(f, name, x), f"model.{name}" if name != "lm_head" else name
        full = full if full.endswith("bias") else full + ".weight"
        if f.type == "glm4_moe" and "experts." in name:
            parts = ("gate", "up") if "gate_up" in name else ("down",)
            for e in range(f.experts):
                for part, rows in zip(parts, np.split(x[e], len(parts))):
                    yield full.replace(".weight", "").rsplit(".", 1)[0] + f".{e}.{part}_proj.weight", rows
        elif f.type == "glm4_moe":
            yield full.replace("shared_expert.", "shared_experts."), x
        elif "shared_expert.gate_proj" in name:
            up = stored(f, name, w[name.replace("gate_proj", "up_proj")])
            yield full.replace("mlp.shared_expert.gate_proj", "shared_mlp.input_linear"), np.concatenate([x, up])
        elif "shared_expert.up_proj" not in name:
            for ours, theirs in (("mlp.shared_expert.down_proj", "shared_mlp.output_linear"),
                                 ("mlp.experts.gate_up_proj", "block_sparse_moe.input_linear"),
                                 ("mlp.experts.down_proj", "block_sparse_moe.output_linear"),
                                 ("mlp.gate.", "block_sparse_moe.router.layer.")):
                full = full.replace(ours, theirs)
            yield full, x


def write_folder(name, f, w):
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", dict(published(f, w)))
    c = dict(architectures=[f.cls], model_type=f.type, hidden_size=EMBD, num_hidden_layers=f.layers,
             num_attention_heads=f.heads, num_key_value_heads=f.kv, head_dim=f.hd,
             intermediate_size=f.dense or f.ff, vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=EPS,
             tie_word_embeddings=False, num_experts_per_tok=f.used, torch_dtype="float16",
             rope_parameters=dict(rope_type="default", rope_theta=f.theta, partial_rotary_factor=f.rotary), **f.json)
    if f.dense:
        c |= dict(moe_intermediate_size=f.ff)
    else:
        c |= dict(num_local_experts=f.experts) | (dict(shared_intermediate_size=f.shared) if f.shared else {})
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")


def write_gguf(path, f, w):
    g = gguf.GGUFWriter(path, f.arch)
    g.add_name(f"tiny random {f.type}")
    g.add_context_length(256)
    g.add_embedding_length(EMBD)
    g.add_block_count(f.layers)
    g.add_feed_forward_length(f.dense or f.ff)
    g.add_head_count(f.heads)
    g.add_head_count_kv(f.kv)
    g.add_key_length(f.hd)
    g.add_value_length(f.hd)
    g.add_rope_dimension_count(int(f.hd * f.rotary))
    g.add_rope_freq_base(f.theta)
    g.add_layer_norm_rms_eps(EPS)
    g.add_expert_count(f.experts)
    g.add_expert_used_count(f.used)
    if f.arch not in ("llama", "granitemoe"):
        g.add_expert_feed_forward_length(f.ff)
    if f.shared and "expert_shared_count" not in f.keys:
        g.add_expert_shared_feed_forward_length(f.shared)
    for key, v in f.keys.items():
        add = {bool: g.add_bool, float: g.add_float32, int: g.add_uint32}[type(v)]
        add(f"{f.arch}.{key}", v)
    for name, x in tensors(f, w):
        g.add_tensor(name, x)
    finish_gguf(g)


def check(f, w, tokens, logits):
    import torch
    import transformers
    # transformers computes norms and routers in float32 whatever the model's type.
    torch.float32, torch.float, torch.Tensor.float = torch.float64, torch.float64, torch.Tensor.double
    config = transformers.AutoConfig.for_model(
        f.type, vocab_size=VOCAB, hidden_size=EMBD, num_hidden_layers=f.layers, num_attention_heads=f.heads,
        num_key_value_heads=f.kv, head_dim=f.hd, intermediate_size=f.ff, moe_intermediate_size=f.ff,
        shared_expert_intermediate_size=f.shared, num_experts=f.experts, num_local_experts=f.experts,
        num_experts_per_tok=f.used, norm_topk_prob=f.norm, rms_norm_eps=EPS, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": f.theta}, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(w[name.removeprefix("model.").removesuffix(".weight")].copy())
    with torch.no_grad():
        want = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    print(f.type, "largest difference from transformers", np.abs(want - logits).max())
    assert np.abs(want - logits).max() < 1e-12


def main():
    OUT.mkdir(exist_ok=True)
    for name, f in FAMILIES.items():
        rng = np.random.default_rng(7)
        w = weights(f, rng)
        tokens = rng.integers(0, VOCAB, TOKENS)
        logits = forward(f, w, tokens)
        if "--check" in sys.argv:
            if not f.cls:  # check_transformers.py has those with a folder
                check(f, w, tokens, logits)
            continue
        write_gguf(OUT / f"{name}.gguf", f, w)
        if f.cls:
            write_folder(name, f, w)
        write_logits(OUT / f"{name}.bin", tokens, logits)
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
