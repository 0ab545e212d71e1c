"""Tiny random models of Gemma 4, and what its formulas give in float64.

    python tests/golden/make_gemma4.py

Writes NAME.gguf, NAME.bin and the folder NAME into tests/golden/families/, in the forms of make_families.py and
make_variants.py: gemma4 has shared KV layers and per-layer embeddings, gemma4moe experts and V of K's projection on layers
without a window. The formulas are those of Gemma4TextModel in transformers, written out with numpy, each operation by
itself: nothing is shared with the C code. Needs gguf and numpy."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np

from golden_files import finish_gguf, write_logits, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, H, FF, HEADS, KV, EPS, WINDOW = 96, 64, 96, 4, 2, 1e-6, 12
DIM, THETA = {"window": 16, "full": 32}, {"window": 1e4, "full": 1e6}
LIVE = {"window": 1.0, "full": 0.25}  # share of the pairs of a head that turn
# kinds: of the layers; shared: the last layers that read K and V of another; per_layer: width of those embeddings;
# full_kv: KV heads of layers without a window, whose V is K, 0: as the others; experts, used, ff_e: of how many, how wide
MODELS = {
    "gemma4": SimpleNamespace(  # the last layer of each kind is shared, and one more
        kinds=["window", "window", "full", "window", "full", "window", "full"], shared=3, per_layer=32, full_kv=0, experts=0,
        used=0, ff_e=0, cap=0),
    "gemma4moe": SimpleNamespace(kinds=["window", "full", "window", "full"], shared=0, per_layer=0, full_kv=1, experts=8, used=3,
                                 ff_e=32, cap=3.0),
}


def kv_heads(m, kind):
    return m.full_kv if m.full_kv and kind == "full" else KV


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
            g = h // (HEADS // k.shape[1])
            s = k[first:t + 1, g] @ q[t, h]  # the scale is 1
            p = np.exp(s - s.max())
            out[t, h] = p / p.sum() @ v[first:t + 1, g]
    return out.reshape(len(q), -1)


def mixture(m, x, y, b):
    """The router reads x, by a norm of its own; the experts y."""
    logits = (rms(x) * b("ffn_gate_inp", "scale") / math.sqrt(H)) @ b("ffn_gate_inp").T
    chosen = np.argsort(-logits, -1, kind="stable")[:, :m.used]
    out = np.zeros_like(y)
    for t in range(len(y)):
        p = np.exp(logits[t] - logits[t].max())[chosen[t]]
        for e, weight in zip(chosen[t], p / p.sum() * b("ffn_down_exps", "scale")[chosen[t]]):
            gate, up = np.split(b("ffn_gate_up_exps")[e], 2)
            out[t] += weight * ((gelu(y[t] @ gate.T) * (y[t] @ up.T)) @ b("ffn_down_exps")[e].T)
    return out


def forward(m, w, tokens):
    n, layers, p = len(tokens), len(m.kinds), m.per_layer
    x = w["token_embd.weight"][tokens] * math.sqrt(H)
    if p:
        own = (x @ w["per_layer_model_proj.weight"].T / math.sqrt(H)).reshape(n, layers, p)
        of_token = w["per_layer_token_embd.weight"][tokens].reshape(n, layers, p) * math.sqrt(p)
        inputs = (rms(own, w["per_layer_proj_norm.weight"]) + of_token) / math.sqrt(2)
    kept = {}
    for i, kind in enumerate(m.kinds):
        b = lambda name, end="weight": w.get(f"blk.{i}.{name}.{end}")  # noqa: E731
        y = rms(x, b("attn_norm"))
        heads = lambda a, k: (y @ a.T).reshape(n, k, DIM[kind])  # noqa: E731
        q = rotate(rms(heads(b("attn_q"), HEADS), b("attn_q_norm")), kind)
        if i < layers - m.shared:
            k = heads(b("attn_k"), kv_heads(m, kind))
            v = k if b("attn_v") is None else heads(b("attn_v"), kv_heads(m, kind))
            kept[kind] = rotate(rms(k, b("attn_k_norm")), kind), rms(v)
        o = attend(q, *kept[kind], WINDOW if kind == "window" else 0)
        x = x + rms(o @ b("attn_output").T, b("post_attention_norm"))
        y = rms(x, b("ffn_norm"))
        y = (gelu(y @ b("ffn_gate").T) * (y @ b("ffn_up").T)) @ b("ffn_down").T
        if m.experts:
            e = mixture(m, x, rms(x, b("pre_ffw_norm_2")), b)
            y = rms(y, b("post_ffw_norm_1")) + rms(e, b("post_ffw_norm_2"))
        x = x + rms(y, b("post_ffw_norm"))
        if p:
            y = (gelu(x @ b("inp_gate").T) * inputs[:, i]) @ b("proj").T
            x = x + rms(y, b("post_norm"))
        x = x * b("layer_output_scale")
    y = rms(x, w["output_norm.weight"]) @ w["token_embd.weight"].T
    return m.cap * np.tanh(y / m.cap) if m.cap else y


def shapes(m):
    layers = len(m.kinds)
    yield "token_embd.weight", (VOCAB, H)
    if m.per_layer:
        yield "per_layer_token_embd.weight", (VOCAB, layers * m.per_layer)
        yield "per_layer_model_proj.weight", (layers * m.per_layer, H)
        yield "per_layer_proj_norm.weight", (m.per_layer,)
    yield "output_norm.weight", (H,)
    for i, kind in enumerate(m.kinds):
        d, kv, shared = DIM[kind], kv_heads(m, kind) * DIM[kind], i >= layers - m.shared
        parts = {"attn_q": (HEADS * d, H), "attn_q_norm": (d,), "attn_output": (H, HEADS * d)}
        if not shared:
            parts |= {"attn_k": (kv, H), "attn_v": (kv, H), "attn_k_norm": (d,)}
            if m.full_kv and kind == "full":
                del parts["attn_v"]
        ff = 2 * FF if shared else FF
        parts |= {"ffn_gate": (ff, H), "ffn_up": (ff, H), "ffn_down": (H, ff)}
        if m.per_layer:
            parts |= {"inp_gate": (m.per_layer, H), "proj": (H, m.per_layer)}
        if m.experts:
            parts |= {"ffn_gate_inp": (m.experts, H), "ffn_gate_up_exps": (m.experts, 2 * m.ff_e, H),
                      "ffn_down_exps": (m.experts, H, m.ff_e)}
        norms = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"]
        norms += ["post_norm"] if m.per_layer else []
        norms += ["pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"] if m.experts else []
        parts |= {"layer_output_scale": (1,)} | {norm: (H,) for norm in norms}
        for name, shape in parts.items():
            yield f"blk.{i}.{name}.weight", shape
        if m.experts:
            yield f"blk.{i}.ffn_gate_inp.scale", (H,)
            yield f"blk.{i}.ffn_down_exps.scale", (m.experts,)


def stored(name, x):
    return x.astype(np.float32 if x.ndim == 1 or "ffn_gate_inp." in name else np.float16)


def write_gguf(name, m, weights):
    w = gguf.GGUFWriter(OUT / f"{name}.gguf", "gemma4")
    layers = range(len(m.kinds))
    w.add_name("tiny random gemma4")
    w.add_context_length(256)
    w.add_embedding_length(H)
    w.add_block_count(len(m.kinds))
    w.add_feed_forward_length([2 * FF if i >= len(m.kinds) - m.shared else FF for i in layers])
    w.add_head_count(HEADS)
    w.add_head_count_kv([kv_heads(m, kind) for kind in m.kinds] if m.full_kv else KV)
    w.add_key_length(DIM["full"])
    w.add_value_length(DIM["full"])
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_dimension_count(DIM["full"])
    w.add_rope_freq_base(THETA["full"])
    w.add_sliding_window(WINDOW)
    for key, v in (("attention.key_length_swa", DIM["window"]), ("attention.value_length_swa", DIM["window"]),
                   ("rope.dimension_count_swa", DIM["window"]), ("attention.shared_kv_layers", m.shared),
                   ("embedding_length_per_layer_input", m.per_layer)):
        w.add_uint32(f"gemma4.{key}", v)
    if m.experts:
        w.add_expert_count(m.experts)
        w.add_expert_used_count(m.used)
        w.add_expert_feed_forward_length(m.ff_e)
    if m.cap:
        w.add_float32("gemma4.final_logit_softcapping", m.cap)
    w.add_float32("gemma4.rope.freq_base_swa", THETA["window"])
    w.add_array("gemma4.attention.sliding_window_pattern", [kind == "window" for kind in m.kinds])
    n = DIM["full"] // 2
    w.add_tensor("rope_freqs.weight", np.array([1 if i < LIVE["full"] * n else 1e30 for i in range(n)], np.float32))
    for tensor, x in weights.items():
        w.add_tensor(tensor, stored(tensor, x))
    finish_gguf(w)


# Of a layer, what transformers calls a tensor; ".weight" follows but behind those of WHOLE.
HF = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
      "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
      "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
      "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm", "inp_gate": "per_layer_input_gate",
      "proj": "per_layer_projection", "post_norm": "post_per_layer_input_norm", "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
      "post_ffw_norm_1": "post_feedforward_layernorm_1", "post_ffw_norm_2": "post_feedforward_layernorm_2",
      "ffn_gate_inp": "router.proj"}
WHOLE = {"layer_output_scale.weight": "layer_scalar", "ffn_gate_inp.scale": "router.scale",
         "ffn_down_exps.scale": "router.per_expert_scale", "ffn_gate_up_exps.weight": "experts.gate_up_proj",
         "ffn_down_exps.weight": "experts.down_proj"}
OF_MODEL = {"token_embd": "embed_tokens", "per_layer_token_embd": "embed_tokens_per_layer", "output_norm": "norm",
            "per_layer_model_proj": "per_layer_model_projection", "per_layer_proj_norm": "per_layer_projection_norm"}


def hf_name(name):
    if not name.startswith("blk."):
        return f"model.language_model.{OF_MODEL[name.removesuffix('.weight')]}.weight"
    _, layer, rest = name.split(".", 2)
    rest = WHOLE.get(rest) or f"{HF[rest.removesuffix('.weight')]}.weight"
    return f"model.language_model.layers.{layer}.{rest}"


def write_folder(name, m, weights):
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", {hf_name(n): stored(n, x) for n, x in weights.items()})
    kinds = ["sliding_attention" if kind == "window" else "full_attention" for kind in m.kinds]
    text = dict(model_type="gemma4_text", hidden_size=H, num_hidden_layers=len(kinds), num_attention_heads=HEADS,
                num_key_value_heads=KV, head_dim=DIM["window"], global_head_dim=DIM["full"], intermediate_size=FF,
                vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=EPS, sliding_window=WINDOW, layer_types=kinds,
                num_kv_shared_layers=m.shared, use_double_wide_mlp=m.shared > 0, tie_word_embeddings=True,
                hidden_size_per_layer_input=m.per_layer, vocab_size_per_layer_input=VOCAB,
                attention_k_eq_v=m.full_kv > 0, num_global_key_value_heads=m.full_kv or None,
                final_logit_softcapping=m.cap or None, hidden_activation="gelu_pytorch_tanh",
                enable_moe_block=m.experts > 0, num_experts=m.experts or None, top_k_experts=m.used or None,
                moe_intermediate_size=m.ff_e or None,
                rope_parameters={"sliding_attention": dict(rope_type="default", rope_theta=THETA["window"]),
                                 "full_attention": dict(rope_type="proportional", rope_theta=THETA["full"],
                                                        partial_rotary_factor=LIVE["full"])})
    config = dict(architectures=["Gemma4ForConditionalGeneration"], model_type="gemma4", dtype="float16", text_config=text)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def main():
    for name, m in MODELS.items():
        rng = np.random.default_rng(5)
        weights = {}
        for tensor, shape in shapes(m):
            x = rng.uniform(-1, 1, shape)
            if len(shape) == 1:
                weights[tensor] = np.float32(1 + 0.3 * x).astype(np.float64)
            else:  # as the file has them; routers are large, so that few choices are near
                scale = 0.5 if "embd" in tensor else (12 if "gate_inp" in tensor else 1.5) / math.sqrt(shape[-1])
                weights[tensor] = stored(tensor, x * scale).astype(np.float64)
        write_gguf(name, m, weights)
        write_folder(name, m, weights)
        tokens = rng.integers(0, VOCAB, 60)
        logits = forward(m, weights, tokens)
        write_logits(OUT / f"{name}.bin", tokens, logits)
        print(name, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
