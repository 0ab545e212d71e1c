#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/gguf and corpus/imatrix: small GGUF files, good ones and ones that are wrong in one
place each, where libFuzzer starts from. No third-party packages; the same bytes every time.

    tests/fuzz/make_gguf_corpus.py [FOLDER]
"""
import os
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
DT_F32, DT_F16, DT_Q4_0, DT_Q8_0 = 0, 1, 2, 8
BLOCK = {DT_F32: (1, 4), DT_F16: (1, 2), DT_Q4_0: (32, 18), DT_Q8_0: (32, 34)}
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B",
        U64: "Q", I64: "q", F64: "d"}


def text(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        elem, items = v
        return struct.pack("<IQ", elem, len(items)) + b"".join(value(elem, x) for x in items)
    return struct.pack("<" + PACK[kind], v)


def size(dtype, shape):
    elems, bytes_ = BLOCK[dtype]
    n = shape[0] // elems * bytes_
    for d in shape[1:]:
        n *= d
    return n


def gguf(kvs, tensors=(), version=3, alignment=32, n_tensors=None, n_kv=None, offsets=None,
         cut=None):
    """kvs: (key, type, value); tensors: (name, dtype, shape)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                                 len(kvs) if n_kv is None else n_kv)
    for key, kind, v in kvs:
        head += text(key) + struct.pack("<I", kind) + value(kind, v)
    data = b""
    for i, (name, dtype, shape) in enumerate(tensors):
        data += bytes(-len(data) % alignment)
        at = offsets[i] if offsets else len(data)
        head += text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", dtype, at)
        data += bytes((7 * i + k) & 0x3F for k in range(size(dtype, shape)))
    out = head + bytes(-len(head) % alignment) + data
    return out if cut is None else out[:cut]


def keys(arch, **more):
    k = {"block_count": 1, "context_length": 32, "embedding_length": 8, "feed_forward_length": 8,
         "attention.head_count": 2, "attention.head_count_kv": 1, "vocab_size": 4}
    k.update(more)
    kvs = [("general.architecture", STRING, arch), ("general.name", STRING, "corpus")]
    kvs += [(f"{arch}.{name}", U32, v) for name, v in k.items()]
    kvs.append((f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5))
    kvs.append((f"{arch}.rope.freq_base", F32, 10000.0))
    return kvs


def tensors(dtype=DT_F16, bias=False, tied=False, h=8, kv=4, ff=8, vocab=4):
    t = [("token_embd.weight", dtype, (h, vocab)), ("output_norm.weight", DT_F32, (h,))]
    if not tied:
        t.append(("output.weight", dtype, (h, vocab)))
    rows = {"attn_q": (h, h), "attn_k": (h, kv), "attn_v": (h, kv), "attn_output": (h, h),
            "ffn_gate": (h, ff), "ffn_up": (h, ff), "ffn_down": (ff, h)}
    for name, shape in rows.items():
        t.append((f"blk.0.{name}.weight", dtype, shape))
        if bias and name in ("attn_q", "attn_k", "attn_v"):
            t.append((f"blk.0.{name}.bias", DT_F32, (shape[1],)))
    t += [(f"blk.0.{n}.weight", DT_F32, (h,)) for n in ("attn_norm", "ffn_norm")]
    return t


def tokenizer(pre, merges=("a b", "\u0120 a", "ab 1"), types=None):
    vocab = ["a", "b", "1", "'", "\u0120", "\u010a", "\u00c3", "\u00a4"]
    vocab += [m.replace(" ", "") for m in ("a b", "\u0120 a", "ab 1")] + ["<|im_end|>", "<|a", "  "]
    if types is None:
        types = [1] * (len(vocab) - 3) + [3, 4, 4]
    g = "tokenizer.ggml."
    return [(g + "model", STRING, "gpt2"), (g + "pre", STRING, pre),
            (g + "tokens", ARRAY, (STRING, vocab)), (g + "token_type", ARRAY, (I32, types)),
            (g + "merges", ARRAY, (STRING, list(merges))), (g + "bos_token_id", U32, 11),
            (g + "eos_token_id", U32, 11), (g + "add_bos_token", BOOL, 1),
            ("tokenizer.chat_template", STRING, "{{ messages }}")]


def corpus():
    every = [("t.u8", U8, 1), ("t.i8", I8, -1), ("t.u16", U16, 2), ("t.i16", I16, -2),
             ("t.u32", U32, 3), ("t.i32", I32, -3), ("t.f32", F32, 0.5), ("t.bool", BOOL, 1),
             ("t.string", STRING, b"\xff\x00text"), ("t.u64", U64, 4), ("t.i64", I64, -4),
             ("t.f64", F64, 0.25), ("t.none", ARRAY, (U8, [])),
             ("t.ints", ARRAY, (I32, [1, -2])), ("t.flags", ARRAY, (BOOL, [0, 1])),
             ("t.strings", ARRAY, (STRING, ["", "a", "bc"]))]
    one = [("a", DT_F32, (8,))]
    two = one + [("b", DT_F32, (8,))]
    vocab = [("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b", "c", "d"]))]
    yarn = [("llama.rope.scaling.type", STRING, "yarn"), ("llama.rope.scaling.factor", F32, 4.0),
            ("llama.rope.scaling.original_context_length", U32, 16)]
    split = [("split.no", U16, 0), ("split.count", U16, 2), ("split.tensors.count", I32, 1)]
    yield "every-type", gguf(every)
    for pre in ("smollm", "llama-bpe", "qwen2"):
        yield "tokenizer-" + pre, gguf(tokenizer(pre))
    yield "tokenizer-bad-merge", gguf(tokenizer("gpt-2", merges=["a b", "x y"]))
    yield "tokenizer-bad-id", gguf(tokenizer("gpt-2") + [("tokenizer.ggml.eot_token_id", U32, 99)])
    yield "tokenizer-bad-types", gguf(tokenizer("gpt-2", types=[1, 1]))
    yield "tokenizer-unknown", gguf(tokenizer("other"))
    yield "version-2", gguf(every, one, version=2)
    yield "llama", gguf(keys("llama") + vocab, tensors())
    yield "llama-tied", gguf(keys("llama"), tensors(tied=True))
    yield "llama-factors", gguf(keys("llama"), tensors() + [("rope_freqs.weight", DT_F32, (2,))])
    yield "llama-yarn", gguf(keys("llama") + yarn, tensors())
    mixed = [(n, DT_Q8_0 if "ffn_down" in n else t, s) for n, t, s in tensors(ff=32, tied=True)]
    yield "llama-q8_0", gguf(keys("llama", feed_forward_length=32), mixed)
    yield "qwen2", gguf(keys("qwen2"), tensors(bias=True))
    yield "vocabulary-only", gguf(keys("llama") + vocab)
    yield "alignment-64", gguf([("general.alignment", U32, 64)], two, alignment=64)
    yield "experts", gguf(keys("llama", expert_count=4, expert_used_count=2), tensors())
    yield "other-architecture", gguf(keys("mamba"), one)
    yield "missing-tensor", gguf(keys("llama"), tensors()[:-1])
    yield "wrong-shape", gguf(keys("llama"), tensors(kv=8))
    yield "bad-magic", b"GGML" + gguf(every)[4:]
    yield "bad-version", gguf(every, version=1)
    yield "big-endian", gguf(every, version=3 << 24)
    yield "bad-alignment", gguf([("general.alignment", U32, 33)], one)
    yield "many-keys", gguf(every, n_kv=1 << 40)
    yield "many-tensors", gguf(every, one, n_tensors=1 << 40)
    yield "truncated", gguf(every, one, cut=100)
    yield "truncated-data", gguf([], two, cut=-8)
    yield "misaligned", gguf([], two, offsets=[0, 36])
    yield "overlapping", gguf([], two, offsets=[0, 0])
    yield "outside", gguf([], one, offsets=[1 << 40])
    yield "key-twice", gguf(every + every[:1])
    yield "tensor-twice", gguf([], one + one)
    yield "split-part", gguf(split, one)
    yield "bad-type", gguf([("t", U32, 1)]).replace(struct.pack("<I", U32), struct.pack("<I", 77), 1)
    yield "nested-array", gguf([])[:16] + struct.pack("<Q", 1) + text("t") + struct.pack(
        "<IIQIQ", ARRAY, ARRAY, 1, U8, 0)


def imatrices():
    """Importance matrices: of one matrix, and of two experts."""
    kind = [("general.type", STRING, "imatrix"), ("imatrix.datasets", ARRAY, (STRING, ["a.txt"])),
            ("imatrix.chunk_count", U32, 2), ("imatrix.chunk_size", U32, 512)]
    yield "matrix", gguf(kind, [("a.in_sum2", DT_F32, (8, 1)), ("a.counts", DT_F32, (1, 1))])
    yield "experts", gguf(kind, [("a.in_sum2", DT_F32, (8, 2)), ("a.counts", DT_F32, (1, 2))])
    yield "no-counts", gguf(kind, [("a.in_sum2", DT_F32, (8, 1))])
    yield "other-counts", gguf(kind, [("a.in_sum2", DT_F32, (8, 2)), ("a.counts", DT_F32, (1, 1))])


def write(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, data in files:
        assert len(data) < 4096, (name, len(data))
        with open(os.path.join(folder, name + ".gguf"), "wb") as f:
            f.write(data)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "corpus")
    write(os.path.join(folder, "gguf"), corpus())
    write(os.path.join(folder, "imatrix"), imatrices())


if __name__ == "__main__":
    main()
