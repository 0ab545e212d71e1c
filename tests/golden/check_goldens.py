"""The goldens of tests/golden/families/, for the scripts that compare them with another program (make_families.py has their format)."""

import struct
from pathlib import Path

import numpy as np

FAMILIES = Path(__file__).resolve().parent / "families"


def names():
    return sorted(p.stem for p in FAMILIES.glob("*.gguf") if "bert" not in p.stem)  # encoders have vectors, no logits


def golden(name):
    """(tokens [n], logits [n, vocab]) of each run."""
    data = (FAMILIES / f"{name}.bin").read_bytes()
    n_runs, vocab = struct.unpack_from("<2I", data)
    at = 8
    for _ in range(n_runs):
        _, n = struct.unpack_from("<2I", data, at)
        tokens = np.frombuffer(data, "<i4", n, at + 8)
        logits = np.frombuffer(data, "<f4", n * vocab, at + 8 + 4 * n).reshape(n, vocab)
        at += 8 + 4 * n + 4 * n * vocab
        yield tokens, logits


def largest_distance(name, logits_of):
    """The largest relative distance of a row: of logits_of(tokens, vocab) from the golden's."""
    worst = 0.0
    for tokens, logits in golden(name):
        own = logits_of(tokens, logits.shape[1])
        worst = max(worst, float((np.linalg.norm(own - logits, axis=1) / np.linalg.norm(own, axis=1)).max()))
    return worst
