"""Tiny random models of the families that have no small real one, and what transformers says of them.

    python tests/golden/make_families.py

Writes into tests/golden/families/:
    NAME.gguf   random weights in F16 (norms F32), no vocabulary
    NAME.bin    little-endian: u32 n_runs, n_vocab; n_runs times: u32 max_model_len, n_tokens;
                i32 tokens[n_tokens]; f32 logits[n_tokens][n_vocab]
The logits are transformers' own, in float64, eager attention, of the weights as the file has them.
Phi-3 has two runs: sequences inside and beyond the original context take other LongRoPE factors.
Needs torch, transformers, gguf, numpy; tests/engine/test_families.c needs none of them.
"""

import math
import struct
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, Phi3Config, Phi3ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, FF, EPS = 96, 32, 64, 1e-6
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
GEMMA = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
         "post_feedforward_layernorm": "post_ffw_norm"}
COMMON = dict(vocab_size=VOCAB, hidden_size=EMBD, intermediate_size=FF, rms_norm_eps=EPS, pad_token_id=0,
              bos_token_id=1, eos_token_id=2, attn_implementation="eager")


def qwen3():
    config = Qwen3Config(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
                         max_position_embeddings=256, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **COMMON)
    return Qwen3ForCausalLM(config), {"rope.freq_base": 1e6}, [(64, 60)]


def phi3():
    short = [1 + i / 8 for i in range(8)]
    far = [2 + i for i in range(8)]
    factor = math.sqrt(1 + math.log(256 / 40) / math.log(40))
    config = Phi3Config(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                        max_position_embeddings=256, original_max_position_embeddings=40, sliding_window=20,
                        tie_word_embeddings=False,
                        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": short,
                                         "long_factor": far, "original_max_position_embeddings": 40},
                        **(COMMON | dict(hidden_size=64)))
    keys = {"rope.freq_base": 1e4, "attention.sliding_window": 20, "rope.dimension_count": 16,
            "rope.scaling.original_context_length": 40, "rope.scaling.attn_factor": factor,
            "rope_factors_short.weight": short, "rope_factors_long.weight": far}
    return Phi3ForCausalLM(config), keys, [(40, 36), (64, 60)]


def gemma3():
    config = Gemma3TextConfig(num_hidden_layers=7, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
                              query_pre_attn_scalar=32, max_position_embeddings=256, sliding_window=12,
                              rope_parameters={
                                  "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                  "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}, **COMMON)
    keys = {"rope.freq_base": 1e6, "attention.sliding_window": 12, "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0}
    return Gemma3ForCausalLM(config), keys, [(64, 60)]


def randomise(model, rng):
    """Weights that the file holds exactly, as large as keeps the residual stream at about 1."""
    gemma = model.config.model_type.startswith("gemma")
    for name, p in model.named_parameters():
        x = rng.uniform(-1, 1, p.shape)
        if p.ndim == 1:
            x = np.float32(x * 0.3) + (0 if gemma else 1)
        else:
            x = np.float16(x * (1 if "embed" in name else 1.5 / math.sqrt(p.shape[1])))
        p.data = torch.from_numpy(np.asarray(x, np.float64))


def write_gguf(path, arch, model, keys):
    c = model.config
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"tiny random {arch}")
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(EPS)
    for key, v in keys.items():
        if key.endswith(".weight"):
            w.add_tensor(key, np.asarray(v, np.float32))
        elif isinstance(v, str):
            w.add_string(f"{arch}.{key}", v)
        elif isinstance(v, float):
            w.add_float32(f"{arch}.{key}", v)
        else:
            w.add_uint32(f"{arch}.{key}", v)
    names = NAMES | GEMMA if arch == "gemma3" else NAMES
    for name, p in model.named_parameters():
        x = p.data.numpy()
        x = np.float32(x + (arch == "gemma3")) if x.ndim == 1 else np.float16(x)
        part = name.removesuffix(".weight").split(".")
        if "layers" in part:
            name = f"blk.{part[2]}.{names['.'.join(part[3:])]}.weight"
        else:
            name = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}.get(part[-1], "output.weight")
        w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@torch.no_grad()
def main():
    OUT.mkdir(exist_ok=True)
    for arch, make in (("qwen3", qwen3), ("phi3", phi3), ("gemma3", gemma3)):
        rng = np.random.default_rng(5)
        model, keys, runs = make()
        model = model.double().eval()
        randomise(model, rng)
        model.tie_weights()
        write_gguf(OUT / f"{arch}.gguf", arch, model, keys)
        with open(OUT / f"{arch}.bin", "wb") as f:
            f.write(struct.pack("<2I", len(runs), VOCAB))
            for max_model_len, n in runs:
                tokens = rng.integers(0, VOCAB, n)
                logits = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
                assert logits.dtype == np.float64
                f.write(struct.pack("<2I", max_model_len, n) + tokens.astype("<i4").tobytes())
                f.write(logits.astype("<f4").tobytes())
                print(arch, max_model_len, n, "logits of about", round(float(np.abs(logits).mean()), 3))


if __name__ == "__main__":
    main()
