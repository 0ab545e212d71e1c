#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/hf_packed: a small quantised matrix of each packing, with the quantization_config that goes with it, where
libFuzzer starts from. No third-party packages; the same bytes every time.

    tests/fuzz/make_packed_corpus.py [FOLDER]
"""
import json
import random
import struct
import sys
from pathlib import Path

SIZE = {"I32": 4, "I8": 1, "F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "I64": 8}
ROWS, COLS, GROUP = 8, 64, 32
ROW_SCALES = {"F16": 0x3C00, "BF16": 0x3F80}  # 1.0


def tensor(kind, shape, value=None):
    n = SIZE[kind]
    for d in shape:
        n *= d
    if value is not None:
        return kind, shape, value
    if kind in ROW_SCALES:
        return kind, shape, struct.pack("<H", ROW_SCALES[kind]) * (n // 2)
    return kind, shape, random.Random(f"{kind} {shape}").randbytes(n)


def safetensors(tensors):
    """tensors: {name: (type, shape, bytes)}."""
    head, data = {}, b""
    for name, (kind, shape, raw) in tensors.items():
        head[name] = dict(dtype=kind, shape=shape, data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def gptq(bits, sym, order=False):
    t = {"a.qweight": tensor("I32", (COLS * bits // 32, ROWS * 4)), "a.qzeros": tensor("I32", (COLS // GROUP, ROWS * 4 * bits // 32)),
         "a.scales": tensor("F16", (COLS // GROUP, ROWS * 4))}
    if sym:  # the middle of the codes, less one, in every place
        zero = sum(((1 << (bits - 1)) - 1) << i for i in range(0, 32 * bits, bits)).to_bytes(4 * bits, "little")
        t["a.qzeros"] = tensor("I32", (COLS // GROUP, ROWS * 4 * bits // 32), zero * (COLS // GROUP))
    if order:
        t["a.g_idx"] = tensor("I32", (COLS,), b"".join(struct.pack("<i", i % 2) for i in range(COLS)))
    return {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": sym}, t


def compressed(form, bits, kind="int", **weights):
    return {"quant_method": "compressed-tensors", "format": form,
            "config_groups": {"group_0": {"weights": {"num_bits": bits, "type": kind, "symmetric": True, **weights}}}}


def corpus():
    scale = tensor("BF16", (ROWS, COLS // GROUP))
    for bits in (2, 3, 4, 8):
        yield f"gptq_{bits}", gptq(bits, True)
    yield "gptq_zeros", gptq(4, False)
    yield "gptq_8_zeros", gptq(8, False)
    yield "gptq_order", gptq(4, True, order=True)
    yield "awq", ({"quant_method": "awq", "bits": 4, "group_size": GROUP},
                  {"a.qweight": tensor("I32", (COLS, ROWS)), "a.qzeros": tensor("I32", (COLS // GROUP, ROWS)),
                   "a.scales": tensor("F16", (COLS // GROUP, ROWS * 8))})
    yield "words", (compressed("pack-quantized", 4, strategy="group", group_size=GROUP),
                    {"a.weight_packed": tensor("I32", (ROWS, COLS // 8)), "a.weight_scale": scale,
                     "a.weight_shape": tensor("I64", (2,), struct.pack("<2q", ROWS, COLS))})
    yield "words_zeros", (compressed("pack-quantized", 4, strategy="group", group_size=GROUP, symmetric=False),
                          {"a.weight_packed": tensor("I32", (ROWS, COLS // 8)), "a.weight_scale": scale,
                           "a.weight_zero_point": tensor("I32", (ROWS // 8, COLS // GROUP))})
    yield "bytes", (compressed("int-quantized", 8, strategy="channel"),
                    {"a.weight": tensor("I8", (ROWS, COLS)), "a.weight_scale": tensor("BF16", (ROWS, 1))})
    yield "fp8", ({"quant_method": "fp8"}, {"a.weight": tensor("F8_E4M3", (ROWS, COLS)), "a.weight_scale": tensor("F32", (1,), struct.pack("<f", 1))})
    yield "fp8_blocks", ({"quant_method": "fp8", "weight_block_size": [8, 32]},
                         {"a.weight": tensor("F8_E4M3", (ROWS, COLS)),
                          "a.weight_scale_inv": tensor("F32", (1, 2), struct.pack("<2f", 1, 2))})


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "corpus" / "hf_packed")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (config, tensors) in corpus():
        (folder / name).write_bytes(json.dumps(config).encode() + b"\0" + safetensors(tensors))


if __name__ == "__main__":
    main()
