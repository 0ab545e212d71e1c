"""The files that goldens of families are made of; what the scripts beside this one share. Needs numpy."""

import json
import struct

import numpy as np

KIND = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8", "uint16": "BF16"}  # by numpy's name


def write_safetensors(path, named):
    """named: {name: array}. Bits of BF16 are given as uint16."""
    head, data = {}, b""
    for name, x in named.items():
        raw = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        head[name] = dict(dtype=KIND[x.dtype.name], shape=x.shape, data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_logits(path, tokens, logits):
    """NAME.bin of make_families.py, with one run in a context of 64. tokens: [n], logits: [n][vocabulary]."""
    head = struct.pack("<4I", 1, logits.shape[1], 64, len(tokens))
    path.write_bytes(head + tokens.astype("<i4").tobytes() + logits.astype("<f4").tobytes())


def finish_gguf(w):
    """w: a gguf.GGUFWriter that has all keys and tensors."""
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
