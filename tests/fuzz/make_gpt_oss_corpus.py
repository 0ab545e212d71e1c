#!/usr/bin/env python3
"""Writes seeds for fuzz_hf_gpt_oss: the safetensors of a layer of gpt-oss, of its experts and sinks, whole, with a part
missing, and in 16 bits.

    python3 tests/fuzz/make_gpt_oss_corpus.py tests/fuzz/corpus/hf_gpt_oss"""

import random
import sys
from pathlib import Path

from make_packed_corpus import safetensors

rng = random.Random(1)
LAYER = "model.layers.0."
EXPERTS = LAYER + "mlp.experts."


def tensor(name, dtype, *shape):
    n = 2 if dtype == "BF16" else 1
    for d in shape:
        n *= d
    return name, (dtype, shape, rng.randbytes(n))


DOWN = [tensor(EXPERTS + "down_proj_blocks", "U8", 2, 32, 1, 16), tensor(EXPERTS + "down_proj_scales", "U8", 2, 32, 1)]
REST = [tensor(EXPERTS + "gate_up_proj_bias", "BF16", 2, 64), tensor(EXPERTS + "gate_up_proj_blocks", "U8", 2, 64, 1, 16),
        tensor(EXPERTS + "gate_up_proj_scales", "U8", 2, 64, 1), tensor(LAYER + "self_attn.sinks", "BF16", 2)]
SAVED = [tensor(EXPERTS + "down_proj", "BF16", 2, 32, 32), tensor(EXPERTS + "gate_up_proj", "BF16", 2, 32, 64)]

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for file, tensors in {"both": DOWN + REST, "down": DOWN, "no_scales": DOWN[:1] + REST, "saved": SAVED}.items():
    (out / file).write_bytes(safetensors(dict(tensors)))
