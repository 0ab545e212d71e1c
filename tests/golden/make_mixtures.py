"""Tiny random mixtures of experts, and their logits in float64.

    python tests/golden/make_mixtures.py            # needs gguf, numpy
    python tests/golden/make_mixtures.py --check    # torch and transformers too: compares the reference with them

Writes NAME.gguf and NAME.bin into tests/golden/families/, in the format of make_families.py, for mixtral (architecture
llama, whose rows of q and k are permuted in GGUF), qwen2moe and qwen3moe. The reference is plain numpy by the names of
Hugging Face: no cache, every expert a matrix product. --check gives transformers the same weights in float64.
"""

import math
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, LAYERS, EPS, TOKENS = 96, 64, 2, 1e-6, 60

FAMILIES = {
    "mixtral": SimpleNamespace(arch="llama", type="mixtral", heads=4, kv=2, hd=16, ff=48, experts=8, used=3, shared=0,
                               norm=True, qk_norm=False, bias=False, theta=1e4),
    "qwen2moe": SimpleNamespace(arch="qwen2moe", type="qwen2_moe", heads=4, kv=2, hd=16, ff=32, experts=8, used=3, shared=40,
                                norm=False, qk_norm=False, bias=True, theta=1e4),
    "qwen3moe": SimpleNamespace(arch="qwen3moe", type="qwen3_moe", heads=6, kv=2, hd=24, ff=32, experts=8, used=3, shared=0,
                                norm=True, qk_norm=True, bias=False, theta=1e6),
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
    for layer in range(LAYERS):
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
        matrix(p + "mlp.gate", f.experts, EMBD, to=np.float32, scale=4.0)
        matrix(p + "mlp.experts.gate_up_proj", f.experts, 2 * f.ff, EMBD)
        matrix(p + "mlp.experts.down_proj", f.experts, EMBD, f.ff)
        if f.shared:
            matrix(p + "mlp.shared_expert.gate_proj", f.shared, EMBD)
            matrix(p + "mlp.shared_expert.up_proj", f.shared, EMBD)
            matrix(p + "mlp.shared_expert.down_proj", EMBD, f.shared)
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


def rotate(x, theta):
    n = x.shape[-1] // 2
    a = np.arange(len(x))[:, None, None] * theta ** (-np.arange(n) / n)
    low, high = x[..., :n], x[..., n:]
    return np.concatenate([low * np.cos(a) - high * np.sin(a), high * np.cos(a) + low * np.sin(a)], -1)


def attention(f, w, p, x):
    q, k, v = ((x @ w[p + f"{n}_proj"].T + w.get(p + f"{n}_proj.bias", 0)).reshape(len(x), -1, f.hd) for n in "qkv")
    if f.qk_norm:
        q, k = rms(q, w[p + "q_norm"]), rms(k, w[p + "k_norm"])
    q, k = rotate(q, f.theta), rotate(k, f.theta)
    k, v = (np.repeat(y, f.heads // f.kv, 1) for y in (k, v))
    s = np.einsum("thd,uhd->htu", q, k) / math.sqrt(f.hd)
    s = np.where(np.tri(len(x), dtype=bool), s, -np.inf)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    return np.einsum("htu,uhd->thd", s, v).reshape(len(x), -1) @ w[p + "o_proj"].T


def mixture(f, w, p, x):
    logits = x @ w[p + "gate"].T
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    chosen = np.argsort(-logits, -1, kind="stable")[:, :f.used]
    y = np.zeros_like(x)
    for t in range(len(x)):
        by = weight[t, chosen[t]]
        for e, b in zip(chosen[t], by / by.sum() if f.norm else by):
            gate, up = np.split(w[p + "experts.gate_up_proj"][e], 2)
            y[t] += b * gated(x[t], gate, up, w[p + "experts.down_proj"][e])
    if f.shared:
        s = p + "shared_expert."
        y += sigmoid(x @ w[p + "shared_expert_gate"].T) * gated(x, w[s + "gate_proj"], w[s + "up_proj"], w[s + "down_proj"])
    return y


def forward(f, w, tokens):
    x = w["embed_tokens"][tokens]
    for layer in range(LAYERS):
        p = f"layers.{layer}."
        x = x + attention(f, w, p + "self_attn.", rms(x, w[p + "input_layernorm"]))
        x = x + mixture(f, w, p + "mlp.", rms(x, w[p + "post_attention_layernorm"]))
    return rms(x, w["norm"]) @ w["lm_head"].T


# ---- the file

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.experts.down_proj": "ffn_down_exps", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
         "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
         "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}
ENDS = {"embed_tokens": "token_embd.weight", "lm_head": "output.weight", "norm": "output_norm.weight"}


def tensors(f, w):
    for name, x in w.items():
        x = x.astype(np.float32 if x.ndim == 1 or "gate" in name.split(".")[-1] and len(x) <= f.experts and x.ndim == 2
                     else np.float16)
        if name in ENDS:
            yield ENDS[name], x
            continue
        _, layer, rest = name.split(".", 2)
        kind = "bias" if rest.endswith(".bias") else "weight"
        rest = rest.removesuffix(".bias")
        if f.arch == "llama" and rest in ("self_attn.q_proj", "self_attn.k_proj"):  # as llama.cpp's converter permutes
            x = x.reshape(-1, 2, f.hd // 2, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
        if rest == "mlp.experts.gate_up_proj":
            yield f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(x[:, :f.ff])
            yield f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(x[:, f.ff:])
        elif rest == "mlp.shared_expert_gate":
            yield f"blk.{layer}.ffn_gate_inp_shexp.weight", x.reshape(-1)
        else:
            yield f"blk.{layer}.{NAMES[rest]}.{kind}", x


def write_gguf(path, f, w):
    g = gguf.GGUFWriter(path, f.arch)
    g.add_name(f"tiny random {f.type}")
    g.add_context_length(256)
    g.add_embedding_length(EMBD)
    g.add_block_count(LAYERS)
    g.add_feed_forward_length(f.ff)
    g.add_head_count(f.heads)
    g.add_head_count_kv(f.kv)
    g.add_key_length(f.hd)
    g.add_value_length(f.hd)
    g.add_rope_dimension_count(f.hd)
    g.add_rope_freq_base(f.theta)
    g.add_layer_norm_rms_eps(EPS)
    g.add_expert_count(f.experts)
    g.add_expert_used_count(f.used)
    if f.arch != "llama":
        g.add_expert_feed_forward_length(f.ff)
    if f.shared:
        g.add_expert_shared_feed_forward_length(f.shared)
    for name, x in tensors(f, w):
        g.add_tensor(name, x)
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()


def check(f, w, tokens, logits):
    import torch
    import transformers
    # transformers computes norms and routers in float32 whatever the model's type.
    torch.float32, torch.float, torch.Tensor.float = torch.float64, torch.float64, torch.Tensor.double
    config = transformers.AutoConfig.for_model(
        f.type, vocab_size=VOCAB, hidden_size=EMBD, num_hidden_layers=LAYERS, num_attention_heads=f.heads,
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
            check(f, w, tokens, logits)
            continue
        write_gguf(OUT / f"{name}.gguf", f, w)
        with open(OUT / f"{name}.bin", "wb") as out:
            out.write(struct.pack("<4I", 1, VOCAB, 64, TOKENS) + tokens.astype("<i4").tobytes())
            out.write(logits.astype("<f4").tobytes())
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
