#!/usr/bin/env python3
"""Compares the goldens of plain formulas with transformers: the folders of tests/golden/families/, in float64, eager attention.

    python tests/golden/check_transformers.py [NAME ...]

Prints for each folder the largest relative distance of a row of logits (as tests/engine/test_families.c has it) from NAME.bin, whose
logits are floats, and fails where one is above 1e-5: transformers has norms and rotations in float32. Needs torch and transformers (Debian 13's python3-torch will do); no test runs it.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

FAMILIES = Path(__file__).resolve().parent / "families"
BAR = 1e-5


def golden(path):
    """(tokens, logits) of each run."""
    data = path.read_bytes()
    n_runs, vocab = struct.unpack_from("<2I", data)
    at = 8
    for _ in range(n_runs):
        _, n = struct.unpack_from("<2I", data, at)
        tokens = np.frombuffer(data, "<i4", n, at + 8)
        logits = np.frombuffer(data, "<f4", n * vocab, at + 8 + 4 * n).reshape(n, vocab)
        at += 8 + 4 * n + 4 * n * vocab
        yield tokens, logits


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    more = {}
    config.pad_token_id = None  # of a vocabulary that the folder does not have
    if getattr(config, "quantization_config", None):  # codes to the numbers that they stand for
        more["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    kind = getattr(transformers, config.architectures[0])
    # The text part of a model with several computes in the type that its config names.
    model = kind.from_pretrained(folder, config=config, attn_implementation="eager", dtype=torch.float64, **more)
    return model.double().eval()


def distance(folder):
    model, worst = load(folder), 0.0
    for tokens, logits in golden(folder.with_suffix(".bin")):
        with torch.no_grad():
            own = model(torch.tensor(tokens.astype(np.int64))[None], use_cache=False).logits[0].double().numpy()
        worst = max(worst, float((np.linalg.norm(own - logits, axis=1) / np.linalg.norm(own, axis=1)).max()))
    return worst


def main():
    transformers.utils.logging.disable_progress_bar()
    names = sys.argv[1:] or sorted(p.name for p in FAMILIES.iterdir() if p.is_dir())
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    failed = False
    for name in names:
        d = distance(FAMILIES / name)
        failed |= not d <= BAR
        print(f"{name:18} {d:.1e}{'' if d <= BAR else '  differs'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
