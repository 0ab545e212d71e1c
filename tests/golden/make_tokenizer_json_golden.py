#!/usr/bin/env python3
"""Makes tests/golden/tokenizer_json: small tokenizer.json files with NFC, with scripts in a pattern, and with WordPiece, texts, and the ids that
Hugging Face's library gives.

    python tests/golden/make_tokenizer_json_golden.py

Needs the package tokenizers (0.23.3 was used)."""
import json
import random
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).parent / "tokenizer_json"
OLD = unicodedata.ucd_3_2_0  # what every version of Unicode in use agrees on
ODD = ["\u0130", "I\u0307", "\u00df", "\u1e9e", "\ufb01", "\u03a3", "\u212b", "\u2126", "\u0958", "\u1f82", "\ufb2c", "\U0001d15e",
       "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0344", "\u0f73", "\uf900", "\U0002f800", "\u200b", "\u00ad", "\ufeff", "\x00", "\x07",
       "\t", "\n", "\r\n", "\u0085", "\u00a0", "\u3000", "\u2028", "\ufffd", "$", "+", "^", "`", "~", "\u00a1", "\u2014", "\u3002", "\u20ac",
       "##ing", "#", "[UNK]", "'s", "don't", "42", "3.14", "\U0001f600", "\u4f60\u597d", "\u0e01\u0e33", "\u0b95\u0bca", "e\u0301\u0327"]
WORDS = ("the a of and to in planner counts every byte before it loads naïve café Zürich Ångström été Việt Nam Привет мир йод Ёлка "
         "γειά σου Ελλάδα 漢字 かな ガ 한국어 हिन्दी क़ unaffable embedding EMBEDDINGS running Running").split()
BLOCKS = [(0x20, 0x7f), (0xa0, 0x250), (0x300, 0x345), (0x370, 0x400), (0x400, 0x460), (0x591, 0x5f5), (0x600, 0x680), (0x900, 0x980),
          (0x1100, 0x1200), (0x1e00, 0x1f00), (0x1f00, 0x2000), (0x2000, 0x2070), (0x3040, 0x3100), (0x4e00, 0x4f00), (0xac00, 0xac80)]


def texts():
    r = random.Random(20251129)
    out = ["", " ", "Hello, world!", "e\u0301" * 3, "a" * 99 + " b", "a" * 100, "a" * 101, "\u0301", "x" + "\u0316\u0301" * 40 + "y", "漢、字。かー々カーが॥हिन्दी।क़"]
    for _ in range(250):
        parts = []
        for _ in range(r.randrange(1, 9)):
            kind = r.randrange(4)
            if kind == 0:
                parts.append(r.choice(ODD))
            elif kind == 1:
                parts.append(unicodedata.normalize(r.choice(["NFC", "NFD"]), r.choice(WORDS)))
            else:
                lo, hi = r.choice(BLOCKS)
                run = [chr(r.randrange(lo, hi)) for _ in range(r.randrange(1, 5))]
                parts += [c for c in run if OLD.category(c) not in ("Cn", "Cs")]
            parts.append(r.choice(["", "", " ", "  "]))
        out.append("".join(parts))
    return out


def with_nfc():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator([" ".join(WORDS) * 3, *ODD], trainer)
    return t


def with_scripts():
    """Trained without the pattern, so that tokens cross what it cuts."""
    t = Tokenizer(models.BPE())
    pattern = r"[\p{Han}]+|\p{Hiragana}+|[\p{Katakana}ー]+|\p{Devanagari}+|[^\s\p{Han}]|\s+"
    whole = t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    shared = "漢、字。かー々カーが॥हिन्दी।क़"  # Han, kana and Devanagari share marks with others
    t.train_from_iterator([shared] * 50, trainer)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), whole])
    return t


def with_words(**options):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(**options)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    t.train_from_iterator([" ".join(WORDS) * 3, *(o for o in ODD if not set(o) & set("[\0"))], trainer)
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return t


def main():
    OUT.mkdir(exist_ok=True)
    all_texts = texts()
    golden = {"texts": all_texts}
    kinds = {"nfc": with_nfc(), "scripts": with_scripts(), "uncased": with_words(lowercase=True), "cased": with_words(lowercase=False),
             "accents": with_words(lowercase=True, strip_accents=False, handle_chinese_chars=False, clean_text=False)}
    for name, t in kinds.items():
        t.save(str(OUT / f"{name}.json"), pretty=False)
        encoded = [t.encode(x, add_special_tokens=False) for x in all_texts]
        golden[name] = [e.ids for e in encoded]
        golden[name + " decoded"] = [t.decode(e.ids, skip_special_tokens=False) for e in encoded]
    (OUT / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
