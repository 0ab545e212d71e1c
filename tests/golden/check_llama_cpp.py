#!/usr/bin/env python3
"""Compares the goldens of families with llama.cpp: the files tests/golden/families/NAME.gguf, with weights and KV cache in F32.

    python tests/golden/check_llama_cpp.py BIN [NAME ...]        BIN: llama.cpp's build/bin (bench/build_peer.sh prints it)

Prints for each file the largest relative distance of a row of llama.cpp's logits (as tests/engine/test_families.c has it) from
NAME.bin, and fails where one is above 2e-6, or 1e-3 with GELU, for which llama.cpp has a table of F16. A file that it does not
load (Qwen3.5 with keys and values of two sizes, this Gemma 4's order of layers) is named and is no failure; nor are those of DIFFERS. Needs
gguf and numpy, and a C compiler; no test runs it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from check_goldens import FAMILIES, largest_distance, names
from golden_files import finish_gguf
from peer_logits import peer_logits

BAR, GELU_BAR = 2e-6, 1e-3
DIFFERS = {"deepseek2v2": "it takes the two best of each group, the model the best",
           "glm4lite": "it norms latents with the eps of the config, the model with 1e-6",
           "gpt-oss": "it rounds the range of YaRN, the model does not",
           "phi3": "it takes LongRoPE's factors by its context, a multiple of 256"}


def in_f32(path, out):
    """A copy of the file with its F16 tensors as F32. Returns its architecture."""
    r = gguf.GGUFReader(path)
    arch = r.fields["general.architecture"].contents()
    w = gguf.GGUFWriter(out, arch)
    for key, f in r.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        sub = f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None
        w.add_key_value(key, f.contents(), f.types[0], sub_type=sub)
    for t in r.tensors:
        if t.tensor_type == gguf.GGMLQuantizationType.F16:
            w.add_tensor(t.name, t.data.astype(np.float32))
        else:
            w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    finish_gguf(w)
    return arch


def main():
    bin_dir = Path(sys.argv[1]).resolve()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[2:] or names():
            file = Path(folder) / "f32.gguf"
            arch = in_f32(FAMILIES / f"{name}.gguf", file)
            try:
                logits = lambda tokens, vocab: peer_logits(bin_dir, file, tokens, vocab, 1, False, folder, arch)
                d = largest_distance(name, logits)
            except subprocess.CalledProcessError:
                print(f"{name:18} llama.cpp does not run it", flush=True)
                continue
            wrong = not d <= (GELU_BAR if name.startswith("gemma") else BAR)
            failed |= wrong and name not in DIFFERS
            print(f"{name:18} {d:.1e}{'  differs: ' + DIFFERS.get(name, '') if wrong else ''}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
