#!/usr/bin/env python3
"""Compares the goldens of plain formulas with transformers: the folders of tests/golden/families/, in float64, eager attention.

    python tests/golden/check_transformers.py [NAME ...]

Prints for each folder the largest relative distance of a row of logits (as tests/engine/test_families.c has it) from NAME.bin, whose
logits are floats, and fails where one is above 1e-5: transformers has norms and rotations in float32. Needs torch and transformers (Debian 13's python3-torch will do); no test runs it.
"""

import sys

import numpy as np
import torch
import transformers

from check_goldens import FAMILIES, largest_distance, names

BAR = 1e-5


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    more = {}
    config.pad_token_id = None  # of a vocabulary that the folder does not have
    if getattr(config, "quantization_config", None):  # codes to the numbers that they stand for
        more["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    kind = getattr(transformers, config.architectures[0])
    # The text part of a model with several computes in the type that its config names.
    model = kind.from_pretrained(folder, config=config, attn_implementation="eager", dtype=torch.float64, **more)
    model.config._experts_implementation = "eager"  # others have no kernels for float64
    return model.double().eval()


def distance(name):
    model = load(FAMILIES / name)

    def logits(tokens, _):
        with torch.no_grad():
            return model(torch.tensor(tokens.astype(np.int64))[None], use_cache=False).logits[0].double().numpy()
    return largest_distance(name, logits)


def main():
    transformers.utils.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    failed = False
    for name in sys.argv[1:] or [n for n in names() if (FAMILIES / n).is_dir()]:
        d = distance(name)
        failed |= not d <= BAR
        print(f"{name:18} {d:.1e}{'' if d <= BAR else '  differs'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
