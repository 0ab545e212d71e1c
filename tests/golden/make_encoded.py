#!/usr/bin/env python3
"""Writes tests/golden/encoded.bin: rows of float32, their bytes in the types that round to nearest, and the
errors of ggml's search in the others. Bytes are ggml's (libggml-base.so of bench/build_peer.sh, llama-cpp-python
0.3.36) and, but for the sign of a zero scale in row 11, those of PyPI's `gguf` (0.19.0) as well; those of MXFP4 are
`gguf`'s.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 numpy
    /tmp/v/bin/python tests/golden/make_encoded.py "$(bench/build_peer.sh)"/libggml-base.so tests/golden/encoded.bin

Little endian: u32 rows, u32 inputs; f32 x[rows][inputs], f32 importance[inputs]; then records: u32 type's
number in GGUF, u32 kind; kind 0: the bytes of all rows; kind 1: f64 sum of (x - y)^2, f64 the same weighted
with importance when ggml was given it."""

import ctypes
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize

ROUNDED = [Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0]
SEARCHED = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_NL, Q.IQ4_XS]
ROWS, INPUTS = 14, 512

rng = np.random.default_rng(15)
x = (rng.standard_normal((ROWS, INPUTS)) * 0.02).astype(np.float32)
x[1] = rng.standard_t(3, INPUTS) * 0.01
x[2] = np.abs(x[2])
x[3] = -np.abs(x[3])
x[4] = 0
x[5] = 0.75
x[6] = rng.integers(-8, 9, INPUTS) / 16  # ties, and extremes of both signs
x[7, ::2], x[7, 1::2] = 1.5, -1.5
x[8] *= 1e-4
x[9] *= 1e5
x[10] = rng.integers(-127, 128, INPUTS) / 2
x[11] = -0.0
x[11, 40:] = 0.0
x[12, :256] = 0
x[13] += 0.1
importance = np.exp(rng.standard_normal(INPUTS) * 1.5).astype(np.float32)

ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]


def coded(t, weights):
    elems, size = GGML_QUANT_SIZES[t]
    out = np.zeros((ROWS, INPUTS // elems * size), np.uint8)
    ggml.ggml_quantize_chunk(int(t), x.ctypes.data, out.ctypes.data, 0, ROWS, INPUTS,
                             weights.ctypes.data if weights is not None else None)
    return out


def error(t, weights):
    out = coded(t, weights)
    off = (x.astype(np.float64) - dequantize(out, t)) ** 2
    return float((off * (weights if weights is not None else 1)).sum())


with open(sys.argv[2], "wb") as out:
    out.write(struct.pack("<II", ROWS, INPUTS) + x.tobytes() + importance.tobytes())
    for t in ROUNDED:
        data, other = coded(t, None), quantize(x, t).view(np.uint8)
        assert all(r == 11 or (data[r] == other[r]).all() for r in range(ROWS)), t
        out.write(struct.pack("<II", int(t), 0) + data.tobytes())
    out.write(struct.pack("<II", int(Q.MXFP4), 0) + quantize(x, Q.MXFP4).tobytes())
    for t in SEARCHED:
        out.write(struct.pack("<IIdd", int(t), 1, error(t, None), error(t, importance)))
