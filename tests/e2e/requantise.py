#!/usr/bin/env python3
"""Stores the matrices of a GGUF file in other weight types, with the plainest of quantizers: scales by
the extremes, no search. What comes out is worse than what llama-quantize makes, and as well defined.

    requantise.py FROM.gguf TO.gguf TYPE...     several types: layer after layer takes the next one

Rows that a type's block does not divide fall back as in model/dtype.h; matrices outside the layers get
the first type, vectors stay. Layouts of blocks: ggml-common.h; `gguf` reads them back."""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf.quants import NVFP4, dequantize, quantize

FALLBACK = {Q.Q4_K: Q.Q5_0, Q.Q5_K: Q.Q5_1, Q.Q6_K: Q.Q8_0, Q.Q2_K: Q.IQ4_NL, Q.Q3_K: Q.IQ4_NL, Q.IQ4_XS: Q.IQ4_NL,
            Q.TQ1_0: Q.Q4_0, Q.TQ2_0: Q.Q4_0}
# Types whose codes are in a book: where a block's scale stands; -1: in the upper quarters of its last four numbers.
BOOKS = {Q.IQ1_S: 0, Q.IQ1_M: -1, Q.IQ2_XXS: 0, Q.IQ2_XS: 0, Q.IQ2_S: 0, Q.IQ3_XXS: 0, Q.IQ3_S: 0}
FALLBACK |= {t: Q.IQ4_NL for t in BOOKS}
BOOK = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def ratio(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32), where=b != 0)


def halves(a):
    """Binary16 as stored, and as the float32 that a reader sees."""
    h = a.astype(np.float16)
    return h.reshape(-1, 1).view(np.uint8), h.astype(np.float32)


def codes_of(x, scale, low, high):
    return np.clip(np.rint(ratio(x, scale)), low, high).astype(np.int32)


def nearest_in_book(x, scale):
    return np.searchsorted((BOOK[1:] + BOOK[:-1]) / 2, ratio(x, scale)).astype(np.int32)


def planes(codes, bits):
    """Codes of n groups one above the other in bytes: [blocks, n, ...] -> [blocks, ...]."""
    return sum(codes[:, j] << bits * j for j in range(codes.shape[1]))


def pack_planes4(codes, bits):
    """[blocks, 256], 32 apart in each 128."""
    c = codes.reshape(-1, 2, 4, 32)
    return np.stack([planes(c[:, i], bits) for i in range(2)], 1).reshape(len(c), -1)


def with_minimum(x, group, code_max, scale_max):
    """Scales and minima by group, as integers times the two halves of a block of 256."""
    x = x.reshape(len(x), -1, group)
    low = np.maximum(-x.min(2), 0)
    d, df = halves((np.maximum(x.max(2), 0) + low).max(1) / code_max / scale_max)
    m, mf = halves(low.max(1) / scale_max)
    scale = codes_of((np.maximum(x.max(2), 0) + low) / code_max, df[:, None], 0, scale_max)
    least = codes_of(low, mf[:, None], 0, scale_max)
    step, base = (df[:, None] * scale)[:, :, None], (mf[:, None] * least)[:, :, None]
    return d, m, scale, least, codes_of(x + base, step, 0, code_max)


def scales_only(x, group, code_max, scale_max):
    x = x.reshape(len(x), -1, group)
    big = np.abs(x).max(2) / code_max
    d, df = halves(big.max(1) / scale_max)
    scale = codes_of(big, df[:, None], 0, scale_max)
    return d, scale, x, (df[:, None] * scale)[:, :, None]


def scales_k(scale, least):
    a = (scale[:, :4] & 63) | (scale[:, 4:] >> 4) << 6
    b = (least[:, :4] & 63) | (least[:, 4:] >> 4) << 6
    return np.concatenate([a, b, (scale[:, 4:] & 15) | (least[:, 4:] & 15) << 4], 1)


def nibbles64(codes):
    c = codes.reshape(len(codes), 4, 2, 32)
    return ((c[:, :, 0] & 15) | (c[:, :, 1] & 15) << 4).reshape(len(codes), -1)


def q4_k(x):
    d, m, scale, least, codes = with_minimum(x, 32, 15, 63)
    return d, m, scales_k(scale, least), nibbles64(codes)


def q5_k(x):
    d, m, scale, least, codes = with_minimum(x, 32, 31, 63)
    return d, m, scales_k(scale, least), planes(codes >> 4, 1), nibbles64(codes)


def q2_k(x):
    d, m, scale, least, codes = with_minimum(x, 16, 3, 15)
    return scale | least << 4, pack_planes4(codes, 2), d, m


def q3_k(x):
    d, scale, x, step = scales_only(x, 16, 4, 31)
    codes = codes_of(x, step, -4, 3) + 4
    s = scale + 32
    low = (s[:, :8] & 15) | (s[:, 8:] & 15) << 4
    return planes(codes.reshape(-1, 8, 32) >> 2, 1), pack_planes4(codes & 3, 2), low, planes(s.reshape(-1, 4, 4) >> 4, 2), d


def q6_k(x):
    d, scale, x, step = scales_only(x, 16, 32, 127)
    codes = codes_of(x, step, -32, 31) + 32
    c = codes.reshape(-1, 2, 2, 64)
    low = ((c[:, :, 0] & 15) | (c[:, :, 1] & 15) << 4).reshape(len(x), -1)
    return low, pack_planes4(codes >> 4, 2), scale, d


def pairs16(codes):
    c = codes.reshape(len(codes), -1, 2, 16)
    return (c[:, :, 0] | c[:, :, 1] << 4).reshape(len(codes), -1)


def iq4_nl(x):
    d, df = halves(np.abs(x).max(1) / 127)
    return d, pairs16(nearest_in_book(x, df[:, None]))


def iq4_xs(x):
    d, scale, x, step = scales_only(x, 32, 127, 31)
    s = scale + 32
    high = planes(s >> 4, 2)
    return d, np.stack([high & 255, high >> 8], 1), (s[:, 0::2] & 15) | (s[:, 1::2] & 15) << 4, pairs16(nearest_in_book(x, step))


def any_codes(t):
    """Codes by chance, since a search in a book is not plain, with scales that give them a tenth of the spread of x, so that
    a model of which some matrices are these still speaks."""

    def put(raw, d):
        h = d.astype(np.float16).reshape(-1, 1).view(np.uint8).astype(np.int32)
        if BOOKS[t] == 0:
            raw[:, :2] = h
        for i in range(4 if BOOKS[t] < 0 else 0):
            raw[:, 49 + 2 * i] = raw[:, 49 + 2 * i] & 15 | (h[:, i // 2] >> 4 * (i % 2) & 15) << 4

    def make(x):
        raw = np.random.default_rng(5).integers(0, 256, (len(x), gguf.GGML_QUANT_SIZES[t][1]), np.uint8)
        put(raw, np.ones(len(x), np.float32))
        put(raw, x.std(1) / dequantize(raw, t).std(1) / 10)
        return (raw,)

    return make


def nvfp4(x):
    """With a scale of the tensor that is 2^-10: its numbers are multiplied by it."""
    groups = x.reshape(-1, 16) * np.float32(1024)
    d = NVFP4.fp32_to_ue4m3(np.abs(groups).max(1) / 6)
    at = ratio(groups, NVFP4.ue4m3_to_fp32(d)[:, None])
    book = np.array(NVFP4.kvalues, np.float32)
    codes = np.abs(at[:, :, None] - book).argmin(2)
    return d.reshape(-1, 4), (codes[:, :8] | codes[:, 8:] << 4).reshape(len(x), -1)


MAKERS = {t: any_codes(t) for t in BOOKS} | {
    Q.Q4_K: q4_k, Q.Q5_K: q5_k, Q.Q6_K: q6_k, Q.Q2_K: q2_k, Q.Q3_K: q3_k, Q.IQ4_NL: iq4_nl, Q.IQ4_XS: iq4_xs, Q.NVFP4: nvfp4}


def stored(x, t):
    """x: float32 [rows, inputs], as rows of bytes."""
    if t not in MAKERS:
        return quantize(x, t)
    elems, size = gguf.GGML_QUANT_SIZES[t]
    blocks = np.concatenate([p.astype(np.uint8) for p in MAKERS[t](x.reshape(-1, elems))], 1)
    assert blocks.shape[1] == size
    return blocks.reshape(len(x), -1)


def type_of(t, cols):
    t = t if cols % gguf.GGML_QUANT_SIZES[t][0] == 0 else FALLBACK[t]
    return t if cols % gguf.GGML_QUANT_SIZES[t][0] == 0 else Q.F16


def rewrite(source, target, convert, n_layers=None, more=(), vector=lambda t: np.array(t.data)):
    """convert(tensor, layer): rows of bytes and their type, or float32 and None, for each matrix. vector(tensor): the rest.
    more: keys to add, each a name, a value and a type. Returns for each matrix its type and bytes."""
    matrices = []
    reader = gguf.GGUFReader(source)
    arch = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, arch)
    for f in reader.fields.values():
        if f.name == "general.architecture" or f.name.startswith("GGUF."):
            continue
        value = n_layers if n_layers and f.name == f"{arch}.block_count" else f.contents()
        writer.add_key_value(f.name, value, f.types[0], f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None)
    for key in more:
        writer.add_key_value(*key)
    for t in reader.tensors:
        layer = int(t.name.split(".")[1]) if t.name.startswith("blk.") else 0
        if n_layers and layer >= n_layers:
            continue
        if t.name.endswith(".scale"):
            continue  # of a matrix of NVFP4: convert counts it in
        data, raw = (vector(t), None) if len(t.shape) < 2 else convert(t, layer)
        if len(t.shape) > 1:
            matrices.append((raw, data.nbytes))
        writer.add_tensor(t.name, data, raw_dtype=raw)
        if raw == Q.NVFP4:
            writer.add_tensor(t.name.replace(".weight", ".scale"), np.array([2**-10], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return matrices


def values(t):
    x = dequantize(t.data, t.tensor_type).astype(np.float32)
    return x * np.float32(2**-10) if t.tensor_type == Q.NVFP4 else x


def requantise(source, target, types, n_layers=None):
    def convert(t, layer):
        x = values(t)
        to = type_of(types[layer % len(types)], x.shape[1])
        return stored(x, to), to

    return rewrite(source, target, convert, n_layers)


def dequantise(source, target):
    rewrite(source, target, lambda t, layer: (values(t), None))


if __name__ == "__main__":
    requantise(sys.argv[1], sys.argv[2], [Q[name] for name in sys.argv[3:]])
