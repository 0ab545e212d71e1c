#!/usr/bin/env python3
"""Writes tests/golden/quants.bin: blocks of every quantised weight type and the float32 numbers
that they stand for, by the reference of the format, PyPI's `gguf` (made with 0.19.0).

    python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 numpy
    /tmp/v/bin/python tests/golden/make_quants.py tests/golden/quants.bin

Records one after the other, little endian: u32 type's number in GGUF, u32 rows, u32 inputs of a
row; the rows as a file stores them; the values, float32 [rows][inputs]. Rows: of the same byte
throughout (scales thus infinite, NaN, tiny, negative), of random bytes whose scales are then
ordinary numbers, and of random bytes throughout."""

import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

TYPES = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.IQ4_NL, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_XS, Q.IQ1_S,
         Q.IQ1_M, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.TQ1_0, Q.TQ2_0, 41, 42, Q.NVFP4, Q.MXFP4]
# 41 and 42, Q1_0 and Q2_0: gguf does not read them. A scale, then numbers of 1 and 2 bits, the lowest bits first.
SIZES = dict(GGML_QUANT_SIZES) | {41: (128, 18), 42: (64, 18)}
# Where the binary16 numbers of a block stand.
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.IQ4_NL: [0],
          Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.IQ4_XS: [0], Q.IQ1_S: [0],
          Q.IQ1_M: [], Q.IQ2_XXS: [0], Q.IQ2_XS: [0], Q.IQ2_S: [0], Q.IQ3_XXS: [0], Q.IQ3_S: [0], Q.TQ1_0: [52],
          Q.TQ2_0: [64], 41: [0], 42: [0], Q.NVFP4: [], Q.MXFP4: []}
SAME = [0x00, 0xFF, 0x80, 0x7F, 0x55, 0xAA, 0x01]
ORDINARY, ANY = 7, 4



def values_of(raw, t):
    if t not in (41, 42):
        return dequantize(raw, t)
    blocks = raw.reshape(-1, 18)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
    numbers = 2.0 * bits - 1 if t == 41 else bits[:, ::2] + 2.0 * bits[:, 1::2] - 1
    return (d * numbers.astype(np.float32)).reshape(len(raw), -1)


rng = np.random.default_rng(5)
with open(sys.argv[1], "wb") as out:
    for t in TYPES:
        elems, size = SIZES[t]
        n_in = max(elems, 64)
        rows = []
        for byte in SAME:
            rows.append(np.full(n_in // elems * size, byte, np.uint8))
        for i in range(ORDINARY + ANY):
            row = rng.integers(0, 256, n_in // elems * size, np.uint8)
            for at in HALVES[t] if i < ORDINARY else []:
                for block in range(n_in // elems):
                    half = np.float16(rng.normal() * 0.02)
                    row[block * size + at : block * size + at + 2] = np.frombuffer(half.tobytes(), np.uint8)
            if t == Q.IQ1_M and i < ORDINARY:  # its scale is in the upper quarters of four numbers
                half = int(np.float16(rng.normal() * 0.02).view(np.uint16))
                for n in range(4):
                    row[49 + 2 * n] = row[49 + 2 * n] & 15 | (half >> 4 * n & 15) << 4
            if t == Q.MXFP4 and i < ORDINARY:  # a scale is a power of two
                row[::17] = 110 + row[::17] % 16
            rows.append(row)
        raw = np.stack(rows)
        with np.errstate(all="ignore"):
            values = values_of(raw, t).astype(np.float32)
        assert values.shape == (len(rows), n_in)
        out.write(struct.pack("<3I", int(t), len(rows), n_in) + raw.tobytes() + values.tobytes())
