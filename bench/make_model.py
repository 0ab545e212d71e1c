#!/usr/bin/env python3
"""Writes a model of random weights in the shape of a known one, for measurements; NumPy alone, no part of it is kept
in memory, on all cores.

    make_model.py TO.gguf [--shape 1b|3b|8b|moe|a3b|qwen35|as_qwen35|qwen35_tiny|tiny] [--type F16|BF16|Q8_0|Q4_0|Q4_1|Q4_K|Q6_K] [--head-type TYPE]
                  [--layers N] [--vocab N] [--seed N]

1b, 3b, 8b: Llama 3.2 1B and 3B, Llama 3 8B; moe: a small Mixtral, 8 experts, 2 used; a3b: the layers of Qwen3 30B A3B, 128
experts, 8 used (without its norms of q and k); qwen35: eight layers of Qwen3.5, six of them delta nets with the heads of its
35B A3B, and dense; as_qwen35: a llama of the same width and as many weights; qwen35_tiny, tiny: for tests. All matrices are
of one type but the router (F32) and, by --head-type, the head. Values are spread as trained ones are (variance 1 / columns,
scales of blocks differ), so that nothing overflows and texts have a likeliest token. The tokenizer is a byte-level BPE:
256 bytes, then pairs and triples of them, each with its merge, then four special tokens. The same seed gives the same
file."""

import argparse
import os
import struct
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np

CHUNK = 8 << 20  # bytes of a piece that one thread makes
ALIGNMENT = 32
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]


@dataclass
class Recurrent:
    """Delta nets in three layers of four: heads of keys and values, numbers of one, width of the convolution."""
    key_heads: int
    value_heads: int
    head: int
    width: int


@dataclass
class Shape:
    layers: int
    embd: int
    heads: int
    kv_heads: int
    head: int
    ff: int
    vocab: int = 128256
    context: int = 131072
    tied: bool = False
    experts: int = 0
    used: int = 0
    recurrent: Recurrent = None

    @property
    def arch(self):
        return "qwen35" if self.recurrent else "llama"


SHAPES = {
    "1b": Shape(16, 2048, 32, 8, 64, 8192, tied=True),
    "3b": Shape(28, 3072, 24, 8, 128, 8192, tied=True),
    "8b": Shape(32, 4096, 32, 8, 128, 14336, context=8192),
    "a3b": Shape(48, 2048, 32, 4, 128, 768, vocab=151936, context=40960, experts=128, used=8),
    "moe": Shape(12, 1024, 16, 4, 64, 1792, vocab=32000, context=8192, experts=8, used=2),
    "qwen35": Shape(8, 2048, 8, 2, 256, 6144, vocab=32000, recurrent=Recurrent(16, 32, 128, 4)),
    "qwen35_tiny": Shape(4, 128, 1, 1, 64, 128, vocab=32000, recurrent=Recurrent(1, 2, 64, 4)),
    "as_qwen35": Shape(8, 2048, 16, 4, 128, 9216, vocab=32000),
    "tiny": Shape(2, 256, 4, 2, 64, 512, vocab=1000, context=2048),
}

# ---- blocks: each function makes n random blocks of a matrix whose values have the standard deviation `spread`


def random_bytes(rng, n):
    return rng.integers(0, 1 << 64, -(-n // 8), np.uint64).view(np.uint8)[:n]


def bytes_of(rng, *shape):
    return random_bytes(rng, int(np.prod(shape))).reshape(shape)


@cache
def normal_table(spread, to_bits):
    """65536 values at even steps of the normal distribution's quantiles, as 16-bit patterns."""
    some = [NormalDist().inv_cdf((i + 0.5) / 4096) for i in range(4096)]
    return to_bits((np.interp(np.linspace(0, 4095, 65536), np.arange(4096), some) * spread).astype(np.float32))


def f16_bits(x):
    return x.astype(np.float16).view(np.uint16)


def bf16_bits(x):
    return ((x.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def f16(rng, n, spread):
    return normal_table(spread, f16_bits)[random_bytes(rng, 2 * n).view(np.uint16)]


def bf16(rng, n, spread):
    return normal_table(spread, bf16_bits)[random_bytes(rng, 2 * n).view(np.uint16)]


def scales(rng, n, d):
    """Scales of blocks, about d."""
    return (np.linspace(0.75, 1.25, 256) * d).astype(np.float16)[bytes_of(rng, n)]


def q8_0(rng, n, spread):
    b = np.empty(n, [("d", "<f2"), ("q", np.uint8, 32)])
    b["d"], b["q"] = scales(rng, n, spread / 73.9), bytes_of(rng, n, 32)
    return b


def q4_0(rng, n, spread):
    b = np.empty(n, [("d", "<f2"), ("q", np.uint8, 16)])
    b["d"], b["q"] = scales(rng, n, spread / 4.61), bytes_of(rng, n, 16)
    return b


def q4_1(rng, n, spread):
    b = np.empty(n, [("d", "<f2"), ("m", "<f2"), ("q", np.uint8, 16)])
    b["d"], b["q"] = scales(rng, n, spread / 4.61), bytes_of(rng, n, 16)
    b["m"] = -7.5 * b["d"].astype(np.float32)
    return b


def q4_k(rng, n, spread):
    """Eight scales and minima of 6 bits in 12 bytes; each minimum is its scale, and dmin 7.5 d: the mean is 0."""
    b = np.empty(n, [("d", "<f2"), ("dmin", "<f2"), ("s", np.uint8, 12), ("q", np.uint8, 128)])
    b["d"], b["q"] = scales(rng, n, spread / 4.61 / 48), bytes_of(rng, n, 128)
    b["dmin"] = 7.5 * b["d"].astype(np.float32)
    s = 32 + (bytes_of(rng, n, 8) & 31)
    low, high = s[:, :4], s[:, 4:]
    b["s"][:, :4] = b["s"][:, 4:8] = low | (high >> 4) << 6
    b["s"][:, 8:] = (high & 15) | (high & 15) << 4
    return b


def q6_k(rng, n, spread):
    b = np.empty(n, [("ql", np.uint8, 128), ("qh", np.uint8, 64), ("s", np.int8, 16), ("d", "<f2")])
    b["ql"], b["qh"], b["d"] = bytes_of(rng, n, 128), bytes_of(rng, n, 64), scales(rng, n, spread / 18.5 / 48)
    s = bytes_of(rng, n, 16)
    b["s"] = (32 + (s & 31)).astype(np.int8) * np.where(s & 32, -1, 1).astype(np.int8)
    return b


def ones(rng, n, spread):
    return np.ones(n, np.float32)


def f32(rng, n, spread):
    return rng.standard_normal(n, np.float32) * np.float32(spread)


def decays(rng, n, spread):
    """Rates at which a state fades, from slow to fast ones."""
    return -np.exp(rng.uniform(-4, 0, n)).astype(np.float32)


@dataclass
class Type:
    """GGML's number, the file type, values and bytes of a block, what makes blocks."""
    id: int
    file_type: int
    values: int
    bytes: int
    make: object


TYPES = {
    "F32": Type(0, 0, 1, 4, f32),
    "F16": Type(1, 1, 1, 2, f16),
    "BF16": Type(30, 32, 1, 2, bf16),
    "Q8_0": Type(8, 7, 32, 34, q8_0),
    "Q4_0": Type(2, 2, 32, 18, q4_0),
    "Q4_1": Type(3, 3, 32, 20, q4_1),
    "Q4_K": Type(12, 15, 256, 144, q4_k),
    "Q6_K": Type(14, 18, 256, 210, q6_k),
}
NORM = replace(TYPES["F32"], make=ones)
DECAY = replace(TYPES["F32"], make=decays)


@dataclass
class Tensor:
    name: str
    dims: tuple  # columns first
    type: Type
    spread: float = 1.0

    def blocks(self):
        return int(np.prod(self.dims)) // self.type.values

    def bytes(self):
        return self.blocks() * self.type.bytes


# ---- the model


def matrix(name, cols, rows, t, scale=1.0, experts=None):
    return Tensor(name, (cols, rows, *([experts] if experts else [])), t, scale / cols**0.5)


def norm(name, n):
    return Tensor(name, (n,), NORM)


def attention_of(s, blk, t):
    q, kv = s.heads * s.head, s.kv_heads * s.head
    out = [matrix(blk + "attn_q.weight", s.embd, 2 * q if s.recurrent else q, t),  # of Qwen3.5 with a gate
           matrix(blk + "attn_k.weight", s.embd, kv, t), matrix(blk + "attn_v.weight", s.embd, kv, t),
           matrix(blk + "attn_output.weight", q, s.embd, t)]
    return out + ([norm(blk + f"attn_{x}_norm.weight", s.head) for x in "qk"] if s.recurrent else [])


def delta_of(s, blk, t):
    r, f32 = s.recurrent, TYPES["F32"]
    inner = r.value_heads * r.head
    channels = 2 * r.key_heads * r.head + inner
    return [matrix(blk + "attn_qkv.weight", s.embd, channels, t), matrix(blk + "attn_gate.weight", s.embd, inner, t),
            matrix(blk + "ssm_beta.weight", s.embd, r.value_heads, t), matrix(blk + "ssm_alpha.weight", s.embd, r.value_heads, t),
            matrix(blk + "ssm_conv1d.weight", r.width, channels, f32), Tensor(blk + "ssm_a", (r.value_heads,), DECAY),
            Tensor(blk + "ssm_dt.bias", (r.value_heads,), f32), norm(blk + "ssm_norm.weight", r.head),
            matrix(blk + "ssm_out.weight", inner, s.embd, t)]


def tensors_of(s, t, head_type):
    # Logits have a standard deviation of about 4.
    out = [matrix("token_embd.weight", s.embd, s.vocab, t, 4 if s.tied else s.embd**0.5), norm("output_norm.weight", s.embd)]
    if not s.tied:
        out.append(matrix("output.weight", s.embd, s.vocab, head_type, 4))
    for i in range(s.layers):
        blk = f"blk.{i}."
        is_delta = s.recurrent and (i + 1) % 4 != 0
        out += [norm(blk + "attn_norm.weight", s.embd), *(delta_of if is_delta else attention_of)(s, blk, t),
                norm(blk + ("post_attention_norm.weight" if s.recurrent else "ffn_norm.weight"), s.embd)]
        end, experts = ("_exps.weight", s.experts) if s.experts else (".weight", None)
        if experts:
            out.append(matrix(blk + "ffn_gate_inp.weight", s.embd, experts, TYPES["F32"]))
        out += [matrix(blk + "ffn_gate" + end, s.embd, s.ff, t, experts=experts),
                matrix(blk + "ffn_up" + end, s.embd, s.ff, t, experts=experts),
                matrix(blk + "ffn_down" + end, s.ff, s.embd, t, experts=experts)]
    return out


def byte_texts():
    """GPT-2's letters for the 256 bytes, in its order: printable Latin-1, which stands for itself, then U+0100 upwards."""
    return [chr(c) for c in (*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x144))]


def vocabulary(n):
    """Texts and merges of n tokens."""
    letters = byte_texts()
    texts, merges, at = list(letters), [], 0
    while len(texts) < n - len(SPECIAL):  # each text in turn grows by each letter
        for letter in letters[:n - len(SPECIAL) - len(texts)]:
            merges.append(f"{texts[at]} {letter}")
            texts.append(texts[at] + letter)
        at += 1
    return texts + SPECIAL, merges


# ---- GGUF

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def string(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, v):
    if kind == STRING:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def pair(key, kind, v):
    if isinstance(v, list):
        return string(key) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return string(key) + struct.pack("<I", kind) + value(kind, v)


def pairs_of(s, name, file_type):
    texts, merges = vocabulary(s.vocab)
    first = s.vocab - len(SPECIAL)
    out = [pair("general.architecture", STRING, s.arch), pair("general.name", STRING, name),
           pair("general.file_type", U32, file_type)]
    numbers = {"block_count": s.layers, "context_length": s.context, "embedding_length": s.embd, "feed_forward_length": s.ff,
               "attention.head_count": s.heads, "attention.head_count_kv": s.kv_heads, "attention.key_length": s.head,
               "attention.value_length": s.head, "rope.dimension_count": s.head // 4 if s.recurrent else s.head, "vocab_size": s.vocab}
    if s.recurrent:
        r = s.recurrent
        numbers |= {"ssm.conv_kernel": r.width, "ssm.state_size": r.head, "ssm.group_count": r.key_heads,
                    "ssm.time_step_rank": r.value_heads, "ssm.inner_size": r.value_heads * r.head, "full_attention_interval": 4}
    if s.experts:
        numbers |= {"expert_count": s.experts, "expert_used_count": s.used}
    out += [pair(f"{s.arch}.{k}", U32, v) for k, v in numbers.items()]
    out += [pair(f"{s.arch}.rope.freq_base", F32, 5e5), pair(f"{s.arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
            pair("tokenizer.ggml.model", STRING, "gpt2"), pair("tokenizer.ggml.pre", STRING, "llama-bpe"),
            pair("tokenizer.ggml.tokens", STRING, texts),
            pair("tokenizer.ggml.token_type", I32, [1] * first + [3] * len(SPECIAL)),
            pair("tokenizer.ggml.merges", STRING, merges), pair("tokenizer.ggml.bos_token_id", U32, first),
            pair("tokenizer.ggml.eos_token_id", U32, first + 1), pair("tokenizer.chat_template", STRING, TEMPLATE)]
    return out


def aligned(n):
    return -(-n // ALIGNMENT) * ALIGNMENT


def header(pairs, tensors):
    parts, offset = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(pairs)), *pairs], 0
    for t in tensors:
        parts.append(string(t.name) + struct.pack(f"<I{len(t.dims)}QIQ", len(t.dims), *t.dims, t.type.id, offset))
        offset += aligned(t.bytes())
    raw = b"".join(parts)
    return raw + bytes(aligned(len(raw)) - len(raw))


def pieces(tensors, seed):
    """Calls that make the content, in its order: each gives an array, or bytes."""
    for number, t in enumerate(tensors):
        step = CHUNK // t.type.bytes
        for at in range(0, t.blocks(), step):
            def make(t=t, key=(seed, number, at), n=min(step, t.blocks() - at)):
                return t.type.make(np.random.Generator(np.random.SFC64(key)), n, t.spread)
            yield make
        yield lambda t=t: bytes(aligned(t.bytes()) - t.bytes())


def write(path, pairs, tensors, seed):
    workers = os.cpu_count() or 1
    with open(path, "wb", buffering=0) as f, ThreadPoolExecutor(workers) as pool:
        def put(made):
            raw = memoryview(made).cast("B") if len(made) else b""
            while len(raw):
                raw = raw[f.write(raw):]
        put(header(pairs, tensors))
        queue = deque()
        for make in pieces(tensors, seed):
            queue.append(pool.submit(make))
            if len(queue) > 2 * workers:
                put(queue.popleft().result())
        while queue:
            put(queue.popleft().result())
        return f.tell()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("to")
    p.add_argument("--shape", choices=SHAPES, default="8b")
    p.add_argument("--type", choices=[t for t in TYPES if t != "F32"], default="Q4_0")
    p.add_argument("--head-type", choices=TYPES)
    p.add_argument("--layers", type=int)
    p.add_argument("--vocab", type=int)
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    shape = SHAPES[o.shape]
    shape = replace(shape, layers=o.layers or shape.layers, vocab=o.vocab or shape.vocab)
    if shape.layers < 1 or shape.vocab < 300:
        sys.exit("make_model.py: at least one layer and a vocabulary of 300")
    start, t = time.monotonic(), TYPES[o.type]
    tensors = tensors_of(shape, t, TYPES[o.head_type or o.type])
    n = write(o.to, pairs_of(shape, f"{o.shape} of random weights", t.file_type), tensors, o.seed)
    s = time.monotonic() - start
    print(f"{o.to}: {o.shape}, {o.type}, {n} bytes in {s:.1f} s, {n / s / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
