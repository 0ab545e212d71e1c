#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: 10,000 texts, and what an independent tokenizer makes of them.

    python tests/golden/make_tokenizer_golden.py MODEL.gguf [GPT2-VOCAB.gguf]

Needs the packages tokenizers (Hugging Face; 0.23.3 was used) and gguf. MODEL is the small real
model (tools/get-model.sh). The texts are generated from fragments.txt and ranges.txt; the test
(tests/model/test_tokenizer.c) generates the same ones, so that only hashes and some samples
need to be kept. Sets of expected ids:

    NAME/words       specials are characters
    NAME/specials    specials are parsed; texts that are UTF-8 only
    mixed+PRE        mixed.gguf, a vocabulary trained here on the texts without any
                     pre-tokenizer (so that its tokens cross every boundary that the patterns
                     draw), under each pre-tokenizer
    gpt2+PRE         the same with GPT-2's vocabulary, when that file was given

Where a text is not UTF-8, the reference's pre-tokenizer gets U+FFFD for each impossible byte,
and its BPE model the bytes themselves.
"""
import json
import os
import struct
import sys

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")
SEED, N_LINES, CHUNK = 20240517, 10000, 500
M64 = (1 << 64) - 1

# ---- the texts (the twin of tests/model/tokenizer_texts.h) ----


class Rng:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed):
        self.s = seed & M64

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & M64
        x = self.s
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M64
        return x ^ (x >> 31)

    def below(self, n):
        return (self.next() >> 32) * n >> 32


FRAGMENTS = open(os.path.join(HERE, "fragments.txt"), "rb").read().split(b"\n")[:-1]
RANGES = [[int(x, 16) for x in l.split()] for l in open(os.path.join(HERE, "ranges.txt"))]
JOINS = [" ", " ", " ", " ", " ", "  ", "\t", "\n", "\n\n", "\r\n", "   ", "\u00a0", "\u3000",
         "", "'s ", "\u180e", "\u0085", " \n ", "-", "1", "'LL", "\v", "\u2028"]
JOINS = [j.encode() for j in JOINS]


def gen_fragments(r):
    out = b""
    for i in range(1 + r.below(3)):
        if i:
            out += JOINS[r.below(len(JOINS))]
        out += FRAGMENTS[r.below(len(FRAGMENTS))]
    return out


def gen_words(r):
    out = b""
    for i in range(3 + r.below(10)):
        if i:
            out += JOINS[r.below(len(JOINS))]
        words = FRAGMENTS[r.below(len(FRAGMENTS))].split(b" ")
        out += words[r.below(len(words))]
    return out


def gen_chars(r):
    out = ""
    for _ in range(1 + r.below(40)):
        if r.below(6) == 0:
            out += " "
        lo, hi = RANGES[r.below(len(RANGES))]
        out += chr(lo + r.below(hi - lo + 1)) * (1 + (r.below(8) == 0))
    return out.encode()


def gen_ascii(r):
    return bytes(32 + r.below(95) for _ in range(1 + r.below(60)))


def gen_runs(r):
    pool = b" \n\t\ra1.!='-\"0A"
    out = b""
    for _ in range(1 + r.below(5)):
        out += pool[r.below(len(pool)):][:1] * (1 + r.below(80))
    return out


def gen_long(r):
    """One word of up to 2,500 letters: the heap instead of the scan."""
    pool = b"aabeehinorst"
    return bytes(pool[r.below(len(pool))] for _ in range(40 + r.below(2460)))


def gen_numbers(r):
    pool = b"01234567890123456789 ,.-+eEx:/%$"
    return bytes(pool[r.below(len(pool))] for _ in range(1 + r.below(50)))


def gen_broken(r):
    out = bytearray(gen_plain(r))
    for _ in range(1 + r.below(4)):
        at = r.below(len(out) + 1)
        op = r.below(4)
        byte = 0x80 + r.below(128)
        if op == 0:
            out[at:at] = bytes([byte])
        elif op == 1:
            out[at:at + 1] = bytes([byte]) if at < len(out) else b""
        elif op == 2:
            del out[at:at + 1]
        elif at >= len(out) // 2:
            del out[at:]
    return bytes(out)


def gen_plain(r):
    k = r.below(100)
    if k < 30:
        return gen_fragments(r)
    if k < 55:
        return gen_words(r)
    if k < 75:
        return gen_chars(r)
    if k < 85:
        return gen_ascii(r)
    if k < 93:
        return gen_runs(r)
    return gen_numbers(r) if k < 99 else gen_long(r)


def text_of(i):
    r = Rng(SEED + i * 0x9E3779B97F4A7C15)
    return gen_broken(r) if r.below(10) == 0 else gen_plain(r)


# ---- the reference ----

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = dict(add_prefix_space=False, use_regex=False)
PRE = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "smollm": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]),
    "llama-bpe": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CL100K % "{1,3}"), "isolated"),
        pre_tokenizers.ByteLevel(**BYTES)]),
    "qwen2": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CL100K % ""), "isolated"),
        pre_tokenizers.ByteLevel(**BYTES)]),
}


def byte_chars():
    """GPT-2's bytes_to_unicode."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, n = {b: chr(b) for b in plain}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + n)
            n += 1
    return table


BYTE_CHAR = byte_chars()


def chars_of(text):
    """(character as the pre-tokenizer sees it, its bytes), one U+FFFD for each bad byte."""
    out, i = [], 0
    while i < len(text):
        for n in (1, 2, 3, 4):
            try:
                out.append((text[i:i + n].decode(), text[i:i + n]))
                i += n
                break
            except UnicodeDecodeError:
                continue
        else:
            out.append(("\ufffd", text[i:i + 1]))
            i += 1
    return out


class Reference:
    def __init__(self, vocab, pre):
        self.tokens, self.types, self.merges = vocab
        self.pre = PRE[pre]()
        ids = {}
        for i, t in enumerate(self.tokens):
            ids[t] = i
        pairs = [tuple(m.split(" ")) for m in self.merges]
        self.model = models.BPE(ids, pairs, ignore_merges=pre == "llama-bpe")
        self.whole = Tokenizer(self.model)
        self.whole.pre_tokenizer = self.pre
        self.whole.decoder = decoders.ByteLevel()
        self.special = Tokenizer(self.model)
        self.special.pre_tokenizer = self.pre
        self.special.add_special_tokens(
            [AddedToken(t, special=True, normalized=False)
             for t, k in zip(self.tokens, self.types) if k == 3])

    def words(self, text):
        chars = chars_of(text)
        out = []
        for _, (a, b) in self.pre.pre_tokenize_str("".join(c for c, _ in chars)):
            raw = b"".join(x for _, x in chars[a:b])
            out += [t.id for t in self.model.tokenize("".join(BYTE_CHAR[x] for x in raw))]
        try:
            s = text.decode()
        except UnicodeDecodeError:
            return out
        assert self.whole.encode(s, add_special_tokens=False).ids == out, text
        return out

    def specials(self, text):
        try:
            return self.special.encode(text.decode(), add_special_tokens=False).ids
        except UnicodeDecodeError:
            return None


def load_vocab(path):
    f = gguf.GGUFReader(path).fields
    get = lambda k: f["tokenizer.ggml." + k].contents()
    return get("tokens"), get("token_type"), get("merges")


def train_mixed(texts):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(**BYTES)
    t.train_from_iterator(
        [x.decode() for x in texts if x == x.decode(errors="ignore").encode()],
        trainers.BpeTrainer(vocab_size=4000, max_token_length=24, show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(t.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return tokens, [1] * len(tokens), merges


def write_mixed(vocab):
    w = gguf.GGUFWriter(os.path.join(HERE, "mixed.gguf"), "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(vocab[0])
    w.add_token_types(vocab[1])
    w.add_token_merges(vocab[2])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


# ---- the golden file ----


def fnv(h, data):
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


FNV = 0xCBF29CE484222325


def write_set(out, name, texts, encode, n_samples):
    ids = [encode(t) for t in texts]
    out.write("set %s\n" % name)
    step = len(ids) // n_samples if n_samples else len(ids) + 1
    for i in range(0, len(ids), step):
        if n_samples and ids[i] is not None:
            out.write("text %d %s\n" % (i, " ".join(map(str, ids[i]))))
    for c in range(0, len(ids), CHUNK):
        h = FNV
        for x in ids[c:c + CHUNK]:
            if x is not None:
                h = fnv(h, struct.pack("<%di" % len(x), *x) + b"\xff\xff\xff\xff")
        out.write("hash %d %016x\n" % (c, h))
    return sum(len(x) for x in ids if x is not None)


def main():
    texts = [text_of(i) for i in range(N_LINES)]
    mixed = train_mixed(texts)
    if not os.path.exists(os.path.join(HERE, "mixed.gguf")) or "--train" in sys.argv:
        write_mixed(mixed)
    mixed = load_vocab(os.path.join(HERE, "mixed.gguf"))
    with open(os.path.join(HERE, "golden.txt"), "w") as out:
        h = FNV
        for t in texts:
            h = fnv(h, t + b"\0")
        out.write("texts %d %d %016x\n" % (N_LINES, SEED, h))
        smol = Reference(load_vocab(sys.argv[1]), "smollm")
        print("smollm/words", write_set(out, "smollm/words", texts, smol.words, 150))
        print("smollm/specials", write_set(out, "smollm/specials", texts, smol.specials, 50))
        for pre in PRE:
            ref = Reference(mixed, pre)
            print(pre, write_set(out, "mixed+" + pre, texts, ref.words, 25))
        for pre in PRE if len(sys.argv) > 2 and sys.argv[2][0] != "-" else []:
            ref = Reference(load_vocab(sys.argv[2]), pre)
            print("gpt2+" + pre, write_set(out, "gpt2+" + pre, texts, ref.words, 0))


if __name__ == "__main__":
    main()
