#!/usr/bin/env python3
"""Prints the README's table of models and their memory, in Markdown, from `vramd plan`: weights in three types, and
all that vramd takes with a KV cache for 4 sequences of 4096 tokens, on the CPU.

    tools/model_table.py [build/vramd]
    tools/model_table.py --families [--check] [build/vramd]    the table of docs/models.md; --check: compare the page"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = {"rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False}
KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "vocab_size", "max_position_embeddings", "rope_theta")
LLAMA, QWEN2, QWEN3, MISTRAL = [{"architectures": [f"{name}ForCausalLM"], "model_type": name.lower()}
                                for name in ("Llama", "Qwen2", "Qwen3", "Mistral")]
TIED = {"tie_word_embeddings": True}
# From the config.json that is published with each model.
MODELS = {
    "Qwen2.5 0.5B": {**QWEN2, **TIED, **dict(zip(KEYS, (896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6)))},
    "Qwen3 0.6B": {**QWEN3, **TIED, **dict(zip(KEYS, (1024, 3072, 28, 16, 8, 128, 151936, 40960, 1e6)))},
    "Llama 3.2 1B": {**LLAMA, **TIED, **dict(zip(KEYS, (2048, 8192, 16, 32, 8, 64, 128256, 131072, 5e5)))},
    "Mistral 7B v0.3": {**MISTRAL, **dict(zip(KEYS, (4096, 14336, 32, 32, 8, 128, 32768, 32768, 1e6)))},
    "Qwen2.5 7B": {**QWEN2, **dict(zip(KEYS, (3584, 18944, 28, 28, 4, 128, 152064, 32768, 1e6)))},
    "Llama 3.1 8B": {**LLAMA, **dict(zip(KEYS, (4096, 14336, 32, 32, 8, 128, 128256, 131072, 5e5)))},
    "Qwen3 8B": {**QWEN3, **dict(zip(KEYS, (4096, 12288, 36, 32, 8, 128, 151936, 40960, 1e6)))},
    "Llama 3.1 70B": {**LLAMA, **dict(zip(KEYS, (8192, 28672, 80, 64, 8, 128, 128256, 131072, 5e5)))},
}


DELTA = {"linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
         "linear_num_value_heads": 32}
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
EXPERTS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
# A known model of each family, as its config.json has it: model_type, what people call it, numbers.
FAMILIES = {
    "llama": ("Llama 3.1 8B", MODELS["Llama 3.1 8B"]),
    "llama (mixtral)": ("Mixtral 8x7B", {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
                                        **dict(zip(KEYS, (4096, 14336, 32, 32, 8, 128, 32000, 32768, 1e6)))}),
    "qwen2": ("Qwen2.5 7B", MODELS["Qwen2.5 7B"]),
    "qwen3": ("Qwen3 8B", MODELS["Qwen3 8B"]),
    "qwen3moe": ("Qwen3 30B A3B", {"model_type": "qwen3_moe", **dict(zip(EXPERTS, (128, 8, 768))),
                                   **dict(zip(KEYS, (2048, 6144, 48, 32, 4, 128, 151936, 40960, 1e6)))}),
    "qwen35": ("Qwen3.5 9B", {"model_type": "qwen3_5_text", **DELTA,
                              **dict(zip(KEYS, (4096, 12288, 32, 16, 4, 256, 248320, 262144, 1e7)))}),
    "qwen35moe": ("Qwen3.5 35B A3B", {"model_type": "qwen3_5_moe_text", **DELTA, **dict(zip(EXPERTS, (256, 8, 512))),
                                      "shared_expert_intermediate_size": 512,
                                      **dict(zip(KEYS, (2048, 512, 40, 16, 2, 256, 248320, 262144, 1e7)))}),
    "gpt-oss": ("gpt-oss 20B", {"model_type": "gpt_oss", "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
                                **dict(zip(KEYS, (2880, 2880, 24, 64, 8, 64, 201088, 131072, 1.5e5)))}),
    "phi3": ("Phi-3 mini", {"model_type": "phi3", **dict(zip(KEYS, (3072, 8192, 32, 32, 32, 96, 32064, 4096, 1e4)))}),
    "gemma2": ("Gemma 2 9B", {"model_type": "gemma2", **TIED, "sliding_window": 4096,
                              **dict(zip(KEYS, (3584, 14336, 42, 16, 8, 256, 256000, 8192, 1e4)))}),
    "gemma3": ("Gemma 3 1B", {"model_type": "gemma3_text", **TIED, "sliding_window": 512,
                              **dict(zip(KEYS, (1152, 6912, 26, 4, 1, 256, 262144, 32768, 1e6)))}),
    "gemma4": ("Gemma 4 E2B", {"model_type": "gemma4_text", **TIED, "sliding_window": 512, "global_head_dim": 512,
                               "num_kv_shared_layers": 20, "use_double_wide_mlp": True, "hidden_size_per_layer_input": 256,
                               "vocab_size_per_layer_input": 262144,
                               **dict(zip(KEYS, (1536, 6144, 35, 8, 1, 256, 262144, 131072, 1e6)))}),
    "gemma4 (mixture)": ("Gemma 4 26B A4B", {
        "model_type": "gemma4_text", **TIED, "sliding_window": 1024, "global_head_dim": 512, "num_global_key_value_heads": 2,
        "attention_k_eq_v": True, "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704,
        **dict(zip(KEYS, (2816, 2112, 30, 16, 8, 256, 262144, 262144, 1e6)))}),
    "smollm3": ("SmolLM3 3B", {"model_type": "smollm3", **TIED, **dict(zip(KEYS, (2048, 11008, 36, 16, 4, 128, 128256, 65536, 5e6)))}),
    "mistral3": ("Ministral 3 8B", {"model_type": "ministral3", **dict(zip(KEYS, (4096, 14336, 34, 32, 8, 128, 131072, 262144, 1e6))),
                                    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "mscale": 1.0,
                                                        "original_max_position_embeddings": 16384, "mscale_all_dim": 1.0,
                                                        "llama_4_scaling_beta": 0.1}}),
    "olmo2": ("OLMo 2 7B", {"model_type": "olmo2", **dict(zip(KEYS, (4096, 11008, 32, 32, 32, 128, 100352, 4096, 5e5)))}),
    "glm4": ("GLM-4 9B 0414", {"model_type": "glm4", "attention_bias": True, "partial_rotary_factor": 0.5,
                               **dict(zip(KEYS, (4096, 13696, 40, 32, 2, 128, 151552, 32768, 1e4)))}),
    "granite": ("Granite 3.3 8B", {"model_type": "granite", **TIED, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
                                   "attention_multiplier": 0.0078125, "logits_scaling": 16.0,
                                   **dict(zip(KEYS, (4096, 12800, 40, 32, 8, 128, 49159, 131072, 1e7)))}),
    "granitemoe": ("Granite 3.1 3B A800M", {
        "model_type": "granitemoe", **TIED, "num_local_experts": 40, "num_experts_per_tok": 8, "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22, "attention_multiplier": 0.015625, "logits_scaling": 6.0,
        **dict(zip(KEYS, (1536, 512, 32, 24, 8, 64, 49155, 131072, 1e7)))}),
    "lfm2": ("LFM2 1.2B", {"model_type": "lfm2", **TIED, "conv_L_cache": 3, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
                           **dict(zip(KEYS, (2048, 12288, 16, 32, 8, 64, 65536, 128000, 1e6)))}),
    "lfm2moe": ("LFM2 8B A1B", {"model_type": "lfm2_moe", **TIED, "conv_L_cache": 3, "full_attn_idxs": [2, 6, 10, 14, 18, 21],
                                **dict(zip(EXPERTS, (32, 4, 1792))), "num_dense_layers": 2, "use_expert_bias": True,
                                **dict(zip(KEYS, (2048, 7168, 24, 32, 8, 64, 65536, 128000, 1e6)))}),
    "deepseek2": ("DeepSeek V2 Lite", {"model_type": "deepseek_v2", **MLA, "n_routed_experts": 64, "n_shared_experts": 2,
                                       "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
                                       **dict(zip(KEYS, (2048, 10944, 27, 16, 16, 192, 102400, 163840, 1e4)))}),
    "glm4moe": ("GLM 4.5 Air", {"model_type": "glm4_moe", "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
                                "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "attention_bias": True,
                                "partial_rotary_factor": 0.5, **dict(zip(KEYS, (4096, 10944, 46, 96, 8, 128, 151552, 131072, 1e6)))}),
    "granitehybrid": ("Granite 4.0 H Tiny", {
        "model_type": "granitemoehybrid", **TIED, "num_local_experts": 64, "num_experts_per_tok": 6, "shared_intermediate_size": 1024,
        "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4,
        "layer_types": ["attention" if layer % 10 == 5 else "mamba" for layer in range(40)],
        **dict(zip(KEYS, (1536, 512, 40, 12, 4, 128, 100352, 131072, 1e4)))}),
    "nemotron_h": ("Nemotron-H 8B", {
        "model_type": "nemotron_h", "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4,
        **dict(zip(KEYS, (4096, 21504, 52, 32, 8, 128, 131072, 8192, 1e4)))}),
    "bert": ("BGE small (BERT)", {"model_type": "bert", "hidden_act": "gelu",
                                  **dict(zip(KEYS, (384, 1536, 12, 12, 12, 32, 30522, 512, 1e4)))}),
    "nomic-bert": ("Nomic Embed v1.5", {"model_type": "nomic_bert", "type_vocab_size": 2,
                                        **dict(zip(KEYS, (768, 3072, 12, 12, 12, 64, 30528, 2048, 1e3)))}),
}
PAGE = Path(__file__).resolve().parents[1] / "docs/models.md"
MARKS = "<!-- tools/model_table.py --families -->\n", "<!-- end -->\n"


def plan(vramd, config, weights, device=("--backend", "cpu", "--memory", "4TiB")):
    length = min(4096, config["max_position_embeddings"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({**COMMON, **config}))
        r = subprocess.run([vramd, "plan", file, "--json", *device, "--weights", weights, "--max-num-seqs", "4", "--max-model-len",
                            str(length), "--kv-cache-tokens", str(4 * length)], text=True, capture_output=True)
    if r.returncode:
        sys.exit(r.stderr)
    p = json.loads(r.stdout)
    return sum(t["bytes"] for t in p["terms"] if t["class"] == "weights"), p["total_bytes"], p


def gib(n):
    return f"{n / 2**30:.1f}"


def smallest_machine(vramd, config):
    """GiB of the smallest power of two that holds the model in Q4_K_M with a sequence of 4,096 tokens."""
    least = plan(vramd, config, "Q4_K_M")[2]["smallest_budget_bytes"]
    return next(2**k for k in range(12) if least <= 2**k * 2**30 * 0.9)


def verdict(p):
    missing = p.get("missing", [])
    return "planned; lacks " + ", ".join(missing) if missing else "runs"


def families_table(vramd):
    lines = ["| family | known model | parameters | on CPU | on CUDA | KV cache of 1,000 tokens | state of a sequence | smallest machine |",
             "|---|---|---|---|---|---|---|---|"]
    for family, (name, config) in FAMILIES.items():
        p, cuda = plan(vramd, config, "bf16")[2], plan(vramd, config, "bf16", ("--device-memory", "1TiB"))[2]
        state = p.get("state_bytes_per_sequence")
        lines.append(f"| {family} | {name} | {p['model']['n_params'] / 1e9:.2f} B | {verdict(p)} | {verdict(cuda)} | "
                     f"{p['kv']['bytes_per_token'] * 1000 / 2**20:.0f} MiB | {f'{state / 2**20:.1f} MiB' if state else ''} | "
                     f"{smallest_machine(vramd, config)} GiB |")
    return "\n".join(lines) + "\n"


def families(vramd, check):
    page, table = PAGE.read_text(), families_table(vramd)
    head, rest = page.split(MARKS[0])
    wanted = head + MARKS[0] + table + MARKS[1] + rest.split(MARKS[1])[1]
    if check and page != wanted:
        sys.exit(f"{PAGE} differs from what the plan says; run tools/model_table.py --families")
    PAGE.write_text(wanted)


def main():
    flags = {a for a in sys.argv[1:] if a.startswith("--")}
    vramd = next((a for a in sys.argv[1:] if a not in flags), Path(__file__).resolve().parents[1] / "build/vramd")
    if "--families" in flags:
        return families(vramd, "--check" in flags)
    print("| model | parameters | weights Q4_0 / Q8_0 / BF16 | all, Q4_0 / Q8_0 / BF16 | KV cache of 1,000 tokens |\n|---|---|---|---|---|")
    for name, config in MODELS.items():
        plans = [plan(vramd, config, w) for w in ("Q4_0", "Q8_0", "bf16")]
        p = plans[0][2]
        print(f"| {name} | {p['model']['n_params'] / 1e9:.2f} B | {' / '.join(gib(w) for w, _, _ in plans)} | "
              f"{' / '.join(gib(t) for _, t, _ in plans)} | {p['kv']['bytes_per_token'] * 1000 / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
