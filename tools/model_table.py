#!/usr/bin/env python3
"""Prints the README's table of models and their memory, in Markdown, from `vramd plan`: weights in three types, and
all that vramd takes with a KV cache for 4 sequences of 4096 tokens, on the CPU.

    tools/model_table.py [build/vramd]"""

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


def plan(vramd, config, weights):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({**COMMON, **config}))
        r = subprocess.run([vramd, "plan", file, "--json", "--backend", "cpu", "--weights", weights, "--memory", "512GiB", "--max-num-seqs",
                            "4", "--max-model-len", "4096", "--kv-cache-tokens", "16384"], text=True, capture_output=True)
    if r.returncode:
        sys.exit(r.stderr)
    p = json.loads(r.stdout)
    return sum(t["bytes"] for t in p["terms"] if t["class"] == "weights"), p["total_bytes"], p


def gib(n):
    return f"{n / 2**30:.1f}"


def main():
    vramd = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "build/vramd"
    print("| model | parameters | weights Q4_0 / Q8_0 / BF16 | all, Q4_0 / Q8_0 / BF16 | KV cache of 1,000 tokens |\n|---|---|---|---|---|")
    for name, config in MODELS.items():
        plans = [plan(vramd, config, w) for w in ("Q4_0", "Q8_0", "bf16")]
        p = plans[0][2]
        print(f"| {name} | {p['model']['n_params'] / 1e9:.2f} B | {' / '.join(gib(w) for w, _, _ in plans)} | "
              f"{' / '.join(gib(t) for _, t, _ in plans)} | {p['kv']['bytes_per_token'] * 1000 / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
