"""Vectors of all-MiniLM-L6-v2 by plain formulas in float64: tests/golden/minilm.json.

    python tests/golden/make_minilm.py "$(tools/get-model.sh minilm)"

Reads the folder's safetensors and tokenizer.json by itself (BERT's basic tokenizer and greedy WordPiece stand below), runs the
formulas of make_encoders.py over the real weights, takes the mean of the rows and norms it, as sentence-transformers does with
this model. Tokens are those of the tokenizers library, and the vectors agree with transformers 5.24 in float64 within 8e-9, which is
what storing them as float32 costs. Needs numpy and gguf (make_encoders imports it).
"""

import base64
import json
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np

import make_encoders as made

TEXTS = [
    "This is an example sentence",
    "Each sentence is converted",
    "What is the capital of France?",
    "Paris is the capital and most populous city of France, with an estimated population of 2,102,650 residents.",
    "Crème brûlée, naïve façade: Ünïcödé!",
    "机器学习 and embeddings",
    "unbelievably antidisestablishmentarianistic tokenisation",
    " ".join(f"Sentence number {i} talks about rivers, bread and machines." for i in range(24)),
]


def words(text):
    """Lower case, without accents; Han characters and punctuation stand alone."""
    out = ""
    for c in unicodedata.normalize("NFD", text.lower()):
        if unicodedata.category(c) == "Mn":
            continue
        alone = 0x4E00 <= ord(c) <= 0x9FFF or (not c.isalnum() and not c.isspace())
        out += f" {c} " if alone else c
    return out.split()


def tokens(text, vocab):
    ids = [vocab["[CLS]"]]
    for w in words(text):
        at, found = 0, []
        while at < len(w):
            end = next((e for e in range(len(w), at, -1) if ("##" if at else "") + w[at:e] in vocab), None)
            if end is None:
                found = [vocab["[UNK]"]]
                break
            found.append(vocab[("##" if at else "") + w[at:end]])
            at = end
        ids += found
    return ids + [vocab["[SEP]"]]


def gguf_name(name):
    """GGUF's name of a tensor of the folder; None: it is not used."""
    names = {made.hf_name(made.MODELS["bert"], n): n for n, _ in made.shapes(made.MODELS["bert"]) if not n.startswith(("blk.", "cls."))}
    part = name.split(".")
    if part[0] != "encoder":
        return names.get(name)
    at = f"encoder.layer.0.{'.'.join(part[3:])}"
    layer = {made.hf_name(made.MODELS["bert"], n): n for n, _ in made.shapes(made.MODELS["bert"]) if n.startswith("blk.0.")}
    return layer[at].replace("blk.0.", f"blk.{part[2]}.")


def main(folder):
    data = (folder / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    w = {}
    for name, t in head.items():
        key = None if name == "__metadata__" else gguf_name(name)
        if key:
            a, b = t["data_offsets"]
            w[key] = np.frombuffer(data[8 + n + a:8 + n + b], "<f4").astype(np.float64).reshape(t["shape"])
    config = json.loads((folder / "config.json").read_text())
    made.LAYERS, made.HEADS, made.EPS = config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"]
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    out = []
    for text in TEXTS:
        ids = tokens(text, vocab)
        v = made.states(dict(arch="bert"), w, np.array(ids), 0).mean(0)
        v = (v / np.linalg.norm(v)).astype("<f4")
        out.append(dict(text=text, tokens=ids, vector=base64.b64encode(v.tobytes()).decode()))
        print(len(ids), "tokens,", np.round(v[:4], 5), text[:40])
    Path(__file__).with_name("minilm.json").write_text(json.dumps(out, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
