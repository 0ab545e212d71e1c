"""Tiny random encoders (BERT, nomic-bert, a cross-encoder), and their vectors by plain formulas in float64.

    python tests/golden/make_encoders.py [NAME ...]

Writes into tests/golden/families/:
    NAME.gguf   random weights in F16 (vectors F32), a vocabulary of WordPiece
    NAME/       the same model as Hugging Face has them: config.json, model.safetensors, tokenizer.json, modules.json
    NAME.bin    texts and vectors, all in 32 bits: numbers of texts, columns, and vectors of a text; then of each
                text its tokens n, those of its first part (0: it has one), [n] tokens, [vectors][columns] floats
The vectors of an encoder are the mean, the first and the last row of what its last layer gives, not normed; of a
cross-encoder there is one, the score. Formulas: transformers, modeling_bert.py; nomic-bert's modeling_hf_nomic_bert.py:
whole sequences, every score written out. They agree with transformers 5.24 in float64 within 2e-15 (BERT, the
cross-encoder) and 3e-8 (nomic-bert, whose angles are float32 there). Needs numpy and gguf; tests/engine/test_encoders.c needs neither.
"""

import json
import math
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

from golden_files import finish_gguf, write_safetensors

OUT = Path(__file__).resolve().parent / "families"
VOCAB, EMBD, FF, HEADS, LAYERS, EPS, MAX, TYPES, THETA = 96, 32, 48, 4, 2, 1e-12, 640, 2, 1000.0
LENGTHS = [(1, 0), (7, 0), (29, 11), (61, 0), (600, 0)]  # tokens, and of the first of two texts

MODELS = {
    "bert": dict(arch="bert", model_type="bert", cls="BertModel", pooling="cls_token"),
    "bert-rank": dict(arch="bert", model_type="bert", cls="BertForSequenceClassification", labels=1),
    "nomic-bert": dict(arch="nomic-bert", model_type="nomic_bert", cls="NomicBertModel", pooling="mean_tokens"),
}

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("the of and to in is it what capital france paris berlin germany cat dog sat on mat hello world good river "
         "bread").split()
TEXTS = SPECIALS + list(LETTERS) + ["##" + c for c in LETTERS] + list("0123456789.,?!'-") + WORDS
assert len(TEXTS) == VOCAB

# ---- formulas ----

erf = np.vectorize(math.erf)


def layer_norm(x, w, b):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + EPS) * w + b


def rotate(x):
    """x: [tokens, heads, dimensions]; halves are paired."""
    n = x.shape[-1]
    a = np.arange(len(x))[:, None] * THETA ** (-np.arange(0, n, 2) / n)
    c, s = np.cos(a)[:, None], np.sin(a)[:, None]
    i, j = x[..., :n // 2], x[..., n // 2:]
    return np.concatenate([i * c - j * s, i * s + j * c], -1)


def attend(q, k, v):
    s = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
    p = np.exp(s - s.max(-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", p / p.sum(-1, keepdims=True), v).reshape(len(q), -1)


def states(m, w, ids, n_first):
    """What the last layer gives: [tokens, EMBD]."""
    nomic, t = m["arch"] == "nomic-bert", np.arange(len(ids))
    x = w["token_embd.weight"][ids] + w["token_types.weight"][np.where((n_first > 0) & (t >= n_first), 1, 0)]
    if not nomic:
        x = x + w["position_embd.weight"][t]
    x = layer_norm(x, w["token_embd_norm.weight"], w["token_embd_norm.bias"])
    for l in range(LAYERS):
        def linear(name, y, l=l):
            return y @ w[f"blk.{l}.{name}.weight"].T + w.get(f"blk.{l}.{name}.bias", 0)

        def norm(name, y, l=l):
            return layer_norm(y, w[f"blk.{l}.{name}.weight"], w[f"blk.{l}.{name}.bias"])

        qkv = np.split(linear("attn_qkv", x), 3, -1) if nomic else [linear(f"attn_{p}", x) for p in "qkv"]
        q, k, v = (y.reshape(len(x), HEADS, -1) for y in qkv)
        x = norm("attn_output_norm", x + linear("attn_output", attend(*(map(rotate, (q, k)) if nomic else (q, k)), v)))
        up = linear("ffn_up", x)
        if nomic:
            gate = linear("ffn_gate", x)
            h = gate / (1 + np.exp(-gate)) * up
        else:
            h = up * 0.5 * (1 + erf(up / math.sqrt(2)))
        x = norm("layer_output_norm", x + linear("ffn_down", h))
    return x


def vectors(m, w, ids, n_first):
    x = states(m, w, ids, n_first)
    if not m.get("labels"):
        return np.stack([x.mean(0), x[0], x[-1]])
    h = np.tanh(w["cls.weight"] @ x[0] + w["cls.bias"])
    return (w["cls.output.weight"] @ h + w["cls.output.bias"])[None]


# ---- files ----


def shapes(m):
    """Tensors by their names in GGUF."""
    nomic = m["arch"] == "nomic-bert"
    yield "token_embd.weight", (VOCAB, EMBD)
    yield "token_types.weight", (TYPES, EMBD)
    if not nomic:
        yield "position_embd.weight", (MAX, EMBD)
    for n in ("token_embd_norm.weight", "token_embd_norm.bias"):
        yield n, (EMBD,)
    parts = ({"attn_qkv": (3 * EMBD, EMBD), "ffn_gate": (FF, EMBD)} if nomic
             else {f"attn_{p}": (EMBD, EMBD) for p in "qkv"})
    for l in range(LAYERS):
        for n, shape in (parts | {"attn_output": (EMBD, EMBD), "ffn_up": (FF, EMBD), "ffn_down": (EMBD, FF)}).items():
            yield f"blk.{l}.{n}.weight", shape
            if not nomic:
                yield f"blk.{l}.{n}.bias", shape[:1]
        for n in ("attn_output_norm", "layer_output_norm"):
            yield f"blk.{l}.{n}.weight", (EMBD,)
            yield f"blk.{l}.{n}.bias", (EMBD,)
    if not nomic:  # of "bert" without a use: its published folders have it, too
        yield "cls.weight", (EMBD, EMBD)
        yield "cls.bias", (EMBD,)
    if m.get("labels"):
        yield "cls.output.weight", (m["labels"], EMBD)
        yield "cls.output.bias", (m["labels"],)


def random_weights(m, rng):
    """Numbers that the files hold exactly."""
    w = {}
    for name, shape in shapes(m):
        x = rng.uniform(-1, 1, shape)
        if len(shape) == 1:
            w[name] = np.float64(np.float32(np.float32(x * 0.3) + (0 if name.endswith("bias") else 1)))
        else:
            w[name] = np.float64(np.float16(x * (0.7 if "embd" in name or "types" in name else 1.5 / math.sqrt(shape[1]))))
    return w


def stored(x):
    return np.float32(x) if x.ndim == 1 else np.float16(x)


def write_gguf(path, m, w):
    g = gguf.GGUFWriter(path, m["arch"])
    g.add_name(f"tiny random {path.stem}")
    g.add_context_length(MAX)
    g.add_embedding_length(EMBD)
    g.add_block_count(LAYERS)
    g.add_feed_forward_length(FF)
    g.add_head_count(HEADS)
    g.add_layer_norm_eps(EPS)
    g.add_causal_attention(False)
    kinds = {"mean_tokens": gguf.PoolingType.MEAN, "cls_token": gguf.PoolingType.CLS, None: gguf.PoolingType.RANK}
    g.add_pooling_type(kinds[m.get("pooling")])
    if m["arch"] == "nomic-bert":
        g.add_rope_freq_base(THETA)
    # As llama.cpp's converter has them: a mark before what begins a word, nothing before what goes on.
    g.add_tokenizer_model("bert")
    g.add_token_list([t if t in SPECIALS else t[2:] if t.startswith("##") and len(t) > 2 else "\u2581" + t for t in TEXTS])
    g.add_token_types([3 if t in SPECIALS else 1 for t in TEXTS])
    g.add_unk_token_id(1)
    g.add_uint32("tokenizer.ggml.cls_token_id", 2)
    g.add_uint32("tokenizer.ggml.seperator_token_id", 3)
    for key, x in w.items():
        if m.get("labels") or not key.startswith("cls."):
            g.add_tensor(key, stored(x))
    finish_gguf(g)


def hf_name(m, name):
    """What the model's class calls a tensor."""
    nomic, part = m["arch"] == "nomic-bert", name.split(".")
    tables = {"token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
              "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm",
              "cls": "pooler.dense"}
    layer = {"attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
             "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
             "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm"}
    if nomic:
        tables |= {"token_embd_norm": "emb_ln"}
        layer = {"attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "attn_output_norm": "norm1",
                 "ffn_up": "mlp.fc11", "ffn_gate": "mlp.fc12", "ffn_down": "mlp.fc2", "layer_output_norm": "norm2"}
    if name.startswith("cls.output"):
        return f"classifier.{part[2]}"
    before = "bert." if m.get("labels") else ""
    if part[0] != "blk":
        return f"{before}{tables[part[0]]}.{part[1]}"
    return f"{before}encoder.layer{'s' if nomic else ''}.{part[1]}.{layer[part[2]]}.{part[3]}"


def published(m, w):
    named = {hf_name(m, key): stored(x) for key, x in w.items()}
    if m["arch"] == "bert":
        named["embeddings.position_ids"] = np.arange(MAX, dtype=np.int64)[None]
    return named


def config(m):
    c = dict(architectures=[m["cls"]], model_type=m["model_type"], vocab_size=VOCAB, type_vocab_size=TYPES,
             torch_dtype="float16")
    if m["arch"] == "nomic-bert":
        return c | dict(n_embd=EMBD, n_layer=LAYERS, n_head=HEADS, n_inner=FF, n_positions=MAX, rotary_emb_base=THETA,
                        rotary_emb_fraction=1.0, activation_function="swiglu", layer_norm_epsilon=EPS,
                        qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False, prenorm=False)
    if m.get("labels"):
        c |= dict(id2label={str(i): f"LABEL_{i}" for i in range(m["labels"])})
    return c | dict(hidden_size=EMBD, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=FF,
                    max_position_embeddings=MAX, layer_norm_eps=EPS, hidden_act="gelu",
                    position_embedding_type="absolute")


def tokenizer():
    special = [dict(id=i, content=t, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
               for i, t in enumerate(SPECIALS)]
    frame = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return dict(version="1.0", added_tokens=special,
                normalizer=dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None,
                                lowercase=True),
                pre_tokenizer=dict(type="BertPreTokenizer"),
                post_processor=dict(type="TemplateProcessing", single=frame),
                model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##",
                           max_input_chars_per_word=100, vocab={t: i for i, t in enumerate(TEXTS)}))


def write_folder(folder, m, w):
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(), indent=1) + "\n")
    write_safetensors(folder / "model.safetensors", published(m, w))
    (folder / "config.json").write_text(json.dumps(config(m), indent=1) + "\n")
    if m.get("labels"):
        return
    kinds = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    before = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [dict(idx=i, name=str(i), path=p, type=before + t) for i, (p, t) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = dict(word_embedding_dimension=EMBD) | {f"pooling_mode_{k}": k == m["pooling"] for k in kinds}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1) + "\n")


def main():
    for name in sys.argv[1:] or MODELS:
        m, rng = MODELS[name], np.random.default_rng(7)
        w = random_weights(m, rng)
        write_gguf(OUT / f"{name}.gguf", m, w)
        write_folder(OUT / name, m, w)
        with open(OUT / f"{name}.bin", "wb") as out:
            for i, (n, n_first) in enumerate(LENGTHS):
                ids = rng.integers(0, VOCAB, n)
                v = vectors(m, w, ids, n_first).astype("<f4")
                if i == 0:
                    out.write(struct.pack("<3I", len(LENGTHS), v.shape[1], v.shape[0]))
                out.write(struct.pack("<2I", n, n_first) + ids.astype("<i4").tobytes() + v.tobytes())
        print(name, "vectors of about", round(float(np.abs(v).mean()), 3))


if __name__ == "__main__":
    main()
