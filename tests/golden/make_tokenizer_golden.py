#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: 10,000 texts, and what independent tokenizers make of them.

    python tests/golden/make_tokenizer_golden.py MODEL.gguf GEMMA3.gguf VOCABULARIES

Needs the packages tokenizers (Hugging Face; 0.23.3 was used), sentencepiece (0.2.1) and gguf. MODEL and GEMMA3 are the
small real models (tools/get-model.sh, tools/get-model.sh gemma3), VOCABULARIES the folder with ggml-vocab-gpt-2.gguf,
-llama-spm and -phi-3. The texts are generated from fragments.txt and ranges.txt; the test
(tests/text/test_tokenizer_golden.c) generates the same ones, so that only hashes and some samples need to be kept.
Sets of expected ids:

    smollm/words      specials are characters
    smollm/specials   specials are parsed; texts that are UTF-8 only
    mixed+PRE         mixed.gguf, a vocabulary trained here on the texts without any pre-tokenizer (so that its tokens
                      cross every boundary that the patterns draw), under each pre-tokenizer
    gpt2+PRE          the same with GPT-2's vocabulary
    spm, spm+plain, spm+single
                      spm.gguf, trained here by SentencePiece on the texts: as it is, without the space before the text,
                      and with single spaces
    llama-spm, phi-3, gemma3
                      those vocabularies in SentencePiece

Where a text is not UTF-8, the reference's pre-tokenizer gets U+FFFD for each impossible byte, and its BPE model the
bytes themselves. SentencePiece gets the texts alone that are UTF-8 and have no U+2581 and no "</s>" (user-defined in
Phi-3's file, where llama.cpp and Hugging Face's tokenizer begin anew with a space after it).
"""
import json
import os
import struct
import sys
import tempfile

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")
SEED, N_LINES, CHUNK = 20240517, 10000, 500
M64 = (1 << 64) - 1

# ---- the texts (the twin of tests/text/tokenizer_texts.h) ----


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

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANK = r"\s+(?!\S)|\s+"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + BLANK
CL100K = CONTRACTION + "|" + WORDS + BLANK
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def o200k(suffix, digits):
    return (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+" + suffix + r"|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER +
            "*" + suffix + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + BLANK)


KIMI_UPPER, KIMI_LOWER = (letters[:-1] + r"&&[^\p{Han}]]" for letters in (UPPER, LOWER))
KIMI = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?" + KIMI_UPPER + "*" + KIMI_LOWER + "+" + CONTRACTION + r"?|[^\r\n\p{L}\p{N}]?" + KIMI_UPPER +
        "+" + KIMI_LOWER + "*" + CONTRACTION + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + BLANK)
HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
FAR_EAST = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|")
BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
JAIS2_BLANK = "|".join(r"\s{%s}(?!\S)" % n for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")) + r"|\s{1}"

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
DIGIT, DIGITS = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Digits(individual_digits=False)


def split(*patterns, last=BYTES):
    """Each pattern cuts what the one before left; p is a pattern or a pre-tokenizer."""
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(p), "isolated") if isinstance(p, str) else p for p in patterns] + [last])


# As in the tokenizer.json of a model of each row of text/tokenizer_pre_table.c, by the row's first name.
PRE = {
    "gpt-2": GPT2,
    "smollm": pre_tokenizers.Sequence([DIGIT, GPT2]),
    "llama-bpe": split(CL100K % "{1,3}"),
    "qwen2": split(CL100K % ""),
    "dbrx": split(CL100K % "{1,3}"),
    "glm4": split(CL100K % "{1,3}"),
    "qwen35": split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
                    r"\s*[\r\n]+|" + BLANK),
    "deepseek-llm": split(r"[\r\n]", r"\s?[" + CASED + "]+",
                          "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", FAR_EAST, DIGITS),
    "deepseek-coder": split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", FAR_EAST, DIGIT),
    "deepseek-v3": split(r"\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK3 + r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|" + BLANK),
    "spark2_5": split(r"\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK3 + r" ?[\p{P}\p{S}]+|[\r\n]|" + BLANK, r"\p{N}"),
    # Falcon's own has Digits after ByteLevel, which sees its letters for bytes: 0xb2 (a superscript 2) is a digit
    # there, too. Falcon's merges, which were trained so, never cross such a byte.
    "falcon": split(pre_tokenizers.Punctuation("contiguous"), GPT2_REGEX, "[0-9]+", "[0-9][0-9][0-9]"),
    "tekken": split(o200k("", r"\p{N}")),
    "gpt-4o": split(o200k(CONTRACTION + "?", r"\p{N}{1,3}")),
    "kimi-k2": split(KIMI),
    "youtu": split("[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
                   "\ufe30-\ufe4f]+|[\u3105-\u312f]+|" + HAN_AND_KANA, o200k(CONTRACTION + "?", r"\p{N}")),
    "bloom": split(BLOOM),
    "viking": split(BLOOM, DIGIT),
    "chameleon": split("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", DIGIT,
                       r"[\p{P}!-/:-@\[-`{-~]", last=GPT2),
    "jais-2": split(CONTRACTION + "|" + WORDS % "{1,3}" + JAIS2_BLANK),
    "bailingmoe": split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
                        r"\s*[\r\n]|" + BLANK),
    "seed-coder": split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|" + BLANK),
    "ufakzeka": split(WORDS % "" + BLANK),
    "laguna": split(r"[^\n]+|[\n]+", CL100K % ""),
    "exaone-moe": split(CONTRACTION + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|"
                        r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|" + BLANK),
    "minicpm5": split(r"\p{N}{1,3}", CL100K % "+"),
}
IGNORE_MERGES = {"llama-bpe", "glm4", "kimi-k2", "tekken", "youtu", "minicpm5"}


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
        self.pre = PRE[pre]
        ids = {}
        for i, t in enumerate(self.tokens):
            ids[t] = i
        pairs = [tuple(m.split(" ")) for m in self.merges]
        self.model = models.BPE(ids, pairs, ignore_merges=pre in IGNORE_MERGES)
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
    t.pre_tokenizer = BYTES
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


# ---- SentencePiece ----


def for_spm(text):
    return text if text == text.decode(errors="ignore").encode() and "\u2581".encode() not in text and \
        b"</s>" not in text else None


def train_spm(texts, path):
    """A small vocabulary of every kind of token, as GGUF."""
    prefix = os.path.join(tempfile.mkdtemp(), "spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(x.decode() for x in map(for_spm, texts) if x), model_prefix=prefix, model_type="bpe",
        vocab_size=3000, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, character_coverage=0.98, minloglevel=2)
    m = sentencepiece_model_pb2.ModelProto.FromString(open(prefix + ".model", "rb").read())
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list([p.piece for p in m.pieces])
    w.add_token_scores([p.score for p in m.pieces])
    w.add_token_types([p.type for p in m.pieces])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def spm_model(path, prefix=None, single=False):
    """The vocabulary of a GGUF file as a SentencePiece model."""
    f = gguf.GGUFReader(path).fields
    get = lambda k: f["tokenizer.ggml." + k].contents()
    if prefix is None:
        prefix = get("add_space_prefix") if "tokenizer.ggml.add_space_prefix" in f else True
    m = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in zip(get("tokens"), get("scores"), get("token_type")):
        # One is unknown, by name; converters give user-defined ones their spaces back.
        kind = 2 if text == "<unk>" else 3 if kind == 2 else kind
        user = kind == 4  # found before all else; transformers sorts by their score, which converters lose
        m.pieces.add(piece=text.replace(" ", "\u2581") if user else text, score=0 if user else score, type=kind)
    m.trainer_spec.model_type, m.trainer_spec.byte_fallback = 2, True
    m.trainer_spec.unk_id = get("tokens").index("<unk>")
    m.normalizer_spec.name, m.normalizer_spec.add_dummy_prefix = "identity", prefix
    m.normalizer_spec.remove_extra_whitespaces, m.normalizer_spec.escape_whitespaces = single, True
    return m.SerializeToString()


def spm_of(path, **spaces):
    """The vocabulary of a GGUF file in SentencePiece; a function of a text."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=spm_model(path, **spaces))
    return lambda text: None if for_spm(text) is None else sp.encode(text.decode())


# ---- the golden file ----


def fnv(h, data):
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


FNV = 0xCBF29CE484222325


def write_texts(out, texts):
    h = FNV
    for t in texts:
        h = fnv(h, t + b"\0")
    out.write("texts %d %d %016x\n" % (len(texts), SEED, h))


def write_set(out, name, ids, n_samples, skips=None):
    """ids: of each text, None where the reference has none. skips: which texts those are, if no rule says it."""
    out.write("set %s\n" % name)
    if skips is not None:
        out.write("skip%s\n" % "".join(" %d" % i for i in skips))
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
        write_texts(out, texts)
        write = lambda name, encode, n: print(name, write_set(out, name, [encode(t) for t in texts], n))
        smol = Reference(load_vocab(sys.argv[1]), "smollm")
        write("smollm/words", smol.words, 150)
        write("smollm/specials", smol.specials, 50)
        for i, pre in enumerate(PRE):
            ref = Reference(mixed, pre)
            write("mixed+" + pre, ref.words, 25 if i < 4 else 4)
        vocabulary = lambda name: os.path.join(sys.argv[3], "ggml-vocab-%s.gguf" % name)
        for pre in PRE:
            ref = Reference(load_vocab(vocabulary("gpt-2")), pre)
            write("gpt2+" + pre, ref.words, 0)
        small = os.path.join(HERE, "spm.gguf")
        if not os.path.exists(small) or "--train" in sys.argv:
            train_spm(texts, small)
        for name, ref, n in [
                ("spm", spm_of(small), 25), ("spm+plain", spm_of(small, prefix=False), 10),
                ("spm+single", spm_of(small, single=True), 10), ("llama-spm", spm_of(vocabulary("llama-spm")), 25),
                ("phi-3", spm_of(vocabulary("phi-3")), 0), ("gemma3", spm_of(sys.argv[2]), 25)]:
            write(name, ref, n)


if __name__ == "__main__":
    main()
