#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/transformers.txt: what the tokenizers of Hugging Face's transformers make of the texts.

    python tests/golden/make_transformers_golden.py GEMMA3.gguf VOCABULARIES [N FILE]

Needs transformers < 5 (4.57.6 was used; 5 has no tokenizers in Python any more), sentencepiece, protobuf, tiktoken
and gguf; torch is not needed. GEMMA3 and VOCABULARIES are as for make_tokenizer_golden.py, whose texts these are. With N and FILE
it makes as many texts, for a longer comparison:

    python tests/golden/make_transformers_golden.py ... 112000 /tmp/long.txt
    VRAMD_TOKENIZER_GOLDEN=/tmp/long.txt make unit T=tokenizer_golden

A set is named by vocabulary and pre-tokenizer, class, and whether special tokens are parsed. GPT2Tokenizer and
Qwen2Tokenizer are Python, with the module `regex`; LlamaTokenizer and GemmaTokenizer call SentencePiece; Fast ones and
TikTokenConverter build a tokenizer for the Rust package by transformers' own rules; convert_gguf_tokenizer reads the very
file that we read. Left out, and listed as such in each set, are texts where docs/tokenizers.md says that transformers
differs; texts that are not UTF-8 have no form there.
"""
import base64
import json
import os
import struct
import sys
import tempfile
import unicodedata

import gguf
import make_tokenizer_golden as golden
import transformers
from transformers import AddedToken
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.integrations.ggml import convert_gguf_tokenizer

TMP = tempfile.mkdtemp()
os.environ["TIKTOKEN_CACHE_DIR"] = ""  # its key is the path alone


def fields_of(path):
    fields = gguf.GGUFReader(path).fields
    prefix = "tokenizer.ggml."
    return {k[len(prefix):]: f.contents() for k, f in fields.items() if k.startswith(prefix)}


def bpe(cls, path, **options):
    """A class that takes vocab.json and merges.txt."""
    tokens, _, merges = golden.load_vocab(path)
    vocab_file, merges_file = os.path.join(TMP, "vocab.json"), os.path.join(TMP, "merges.txt")
    with open(vocab_file, "w", encoding="utf-8") as f:
        json.dump({t: i for i, t in enumerate(tokens)}, f)
    with open(merges_file, "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(m + "\n" for m in merges))
    return cls(vocab_file, merges_file, **options)


def tiktoken(path, **options):
    """Llama 3's way: ranks instead of merges."""
    tokens, types, _ = golden.load_vocab(path)
    byte_of = {c: b for b, c in golden.BYTE_CHAR.items()}
    ranks = os.path.join(TMP, "ranks-" + os.path.basename(path))
    with open(ranks, "w") as f:
        for i, (t, kind) in enumerate(zip(tokens, types)):
            if kind == 1:
                f.write("%s %d\n" % (base64.b64encode(bytes(byte_of[c] for c in t)).decode(), i))
    made = TikTokenConverter(vocab_file=ranks, additional_special_tokens=[]).converted()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **options)


def spm(cls, path, **options):
    """A class that takes a SentencePiece model; legacy: a space after each special token, too."""
    model = os.path.join(TMP, os.path.basename(path) + ".model")
    with open(model, "wb") as f:
        f.write(golden.spm_model(path))
    if cls.__name__.startswith("Llama"):
        options.update(legacy=True)
    return cls(model, **options)


def reader(architecture, path, **options):
    """transformers' own reader of GGUF."""
    keys = dict(tokenizer_type="model", unk_token_id="unknown_token_id")
    wanted = ("tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id", *keys)
    have = fields_of(path)
    made, names = convert_gguf_tokenizer(
        architecture, {k: have[keys.get(k, k)] for k in wanted if keys.get(k, k) in have})
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **options, **names)


def nfc(text):
    return unicodedata.is_normalized("NFC", text)


def no_eos(text):
    """</s> is an ordinary word of Phi-3's file; transformers goes on without a space after it."""
    return "</s>" not in text


def sets(gemma, folder):
    """Rows of (name, class, parse special tokens, make, which texts)."""
    gpt2, llama, phi = (os.path.join(folder, "ggml-vocab-%s.gguf" % n) for n in ("gpt-2", "llama-spm", "phi-3"))
    mixed, small = (os.path.join(golden.HERE, n + ".gguf") for n in ("mixed", "spm"))
    t = transformers
    for name, path in ("gpt2", gpt2), ("mixed", mixed):
        yield name + "+gpt-2", "GPT2Tokenizer", False, lambda **o: bpe(t.GPT2Tokenizer, path, **o), None
        yield name + "+qwen2", "Qwen2Tokenizer", False, lambda **o: bpe(t.Qwen2Tokenizer, path, **o), nfc
        yield name + "+llama-bpe", "TikTokenConverter", False, lambda **o: tiktoken(path, **o), None
    yield "gpt2+gpt-2", "GPT2Tokenizer", True, lambda **o: bpe(t.GPT2Tokenizer, gpt2, **o), None
    yield "gpt2+gpt-2", "GPT2TokenizerFast", False, lambda **o: bpe(t.GPT2TokenizerFast, gpt2, **o), None
    yield "gpt2+gpt-2", "convert_gguf_tokenizer", False, lambda **o: reader("gpt2", gpt2, **o), None
    for name, path in ("spm", small), ("llama-spm", llama):
        for special in False, True:
            yield name, "LlamaTokenizer", special, lambda **o: spm(t.LlamaTokenizer, path, **o), None
        yield name, "convert_gguf_tokenizer", False, lambda **o: reader("llama", path, **o), None
    yield "phi-3", "LlamaTokenizer", False, lambda **o: spm(t.LlamaTokenizer, phi, **o), no_eos
    for special in False, True:
        yield "gemma3", "GemmaTokenizer", special, lambda **o: spm(t.GemmaTokenizer, gemma, **o), None
    yield "gemma3", "GemmaTokenizerFast", False, lambda **o: spm(t.GemmaTokenizerFast, gemma, **o), None


def encode(tok, wanted, text):
    try:
        s = text.decode()
    except UnicodeDecodeError:
        return None
    return None if wanted and not wanted(s) else tok.encode(s, add_special_tokens=False)


def left_out(text, ids):
    return ids is None and text == text.decode(errors="ignore").encode()


def main():
    n = int(sys.argv[3]) if len(sys.argv) > 3 else golden.N_LINES
    path = sys.argv[4] if len(sys.argv) > 4 else os.path.join(golden.HERE, "transformers.txt")
    texts = [golden.text_of(i) for i in range(n)]
    with open(path, "w") as out:
        golden.write_texts(out, texts)
        for name, cls, special, make, wanted in sets(*sys.argv[1:3]):
            tok = make(split_special_tokens=not special)
            ids = [encode(tok, wanted, x) for x in texts]
            skips = [i for i, x in enumerate(ids) if left_out(texts[i], x)]
            head = "%s %s%s" % (name, cls, " specials" if special else "")
            print(head, sum(x is not None for x in ids), "texts,", len(skips), "left out", flush=True)
            golden.write_set(out, head, ids, 5, skips)


if __name__ == "__main__":
    main()
