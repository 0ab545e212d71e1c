#!/usr/bin/env python3
"""Writes a tiny llama with random weights and the vocabulary of a golden file: a model that every machine
can have, for engines that are to be compared with each other.

    tiny_model.py TO.gguf F16|BF16|Q4_0|...     [--wide: of heads of 64, 6 MB in 16 bits; K-quants need it]"""

import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from requantise import stored

VOCABULARY = Path(__file__).resolve().parents[1] / "golden" / "tokenizer" / "mixed.gguf"


def write(path, type_name, layers=2, width=64, heads=4, kv_heads=2, ff=160, context=1024, templates=(), ordered=False):
    """templates: (NAME, source) of further chat templates. ordered: ffn_down has its inputs in an order of its own."""
    rng, head = np.random.default_rng(1), width // heads
    vocabulary = gguf.GGUFReader(VOCABULARY)
    n_vocab = len(vocabulary.fields["tokenizer.ggml.tokens"].contents())
    w = gguf.GGUFWriter(path, "llama")
    for f in vocabulary.fields.values():
        if f.name.startswith("tokenizer."):
            w.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    for name, source in templates:
        w.add_string(f"tokenizer.chat_template.{name}", source)
    w.add_block_count(layers)
    w.add_context_length(context)
    w.add_embedding_length(width)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_rope_dimension_count(head)
    w.add_layer_norm_rms_eps(1e-5)

    def matrix(name, rows, cols, scale=1.0):
        x = (rng.standard_normal((rows, cols)) * scale / np.sqrt(cols)).astype(np.float32)
        to = Q[type_name]
        w.add_tensor(name, x.astype(np.float16) if to == Q.F16 else stored(x, to), raw_dtype=to)

    def vector(name):
        w.add_tensor(name, (1 + 0.1 * rng.standard_normal(width)).astype(np.float32))

    matrix("token_embd.weight", n_vocab, width, np.sqrt(width))
    matrix("output.weight", n_vocab, width, 4)  # logits far enough apart to have a likeliest
    vector("output_norm.weight")
    for i in range(layers):
        vector(f"blk.{i}.attn_norm.weight")
        vector(f"blk.{i}.ffn_norm.weight")
        for name, rows, cols in (("attn_q", width, width), ("attn_k", kv_heads * head, width), ("attn_v", kv_heads * head, width),
                                 ("attn_output", width, width), ("ffn_gate", ff, width), ("ffn_up", ff, width), ("ffn_down", width, ff)):
            matrix(f"blk.{i}.{name}.weight", rows, cols)
        if ordered:
            w.add_tensor(f"blk.{i}.ffn_down.order", np.arange(ff - 1, -1, -1, dtype=np.int32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


WIDE = {"width": 256, "ff": 512}

if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], **(WIDE if "--wide" in sys.argv else {}))
