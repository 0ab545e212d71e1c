"""A whole model of 200 KB with random weights, for tests that start a daemon hundreds of times.

    tiny.py TO.gguf"""

import sys

import gguf
import numpy as np

LAYERS, EMBD, HEADS, KV_HEADS, FF, CONTEXT = 2, 64, 2, 1, 128, 512
TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
            "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def bytes_as_text():
    """GPT-2's characters for bytes."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    extra = iter(range(256, 512))
    return [chr(b if b in plain else next(extra)) for b in range(256)]


def make(path):
    tokens = bytes_as_text() + ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "th", "the"]
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(EMBD)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(EMBD // HEADS)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([1] * 256 + [3] * 3 + [1] * 2)
    w.add_token_merges(["t h", "th e"])
    w.add_eos_token_id(257)
    w.add_chat_template(TEMPLATE)

    def matrix(name, rows, cols):
        x = rng.standard_normal((rows, cols)).astype(np.float32) / 8
        w.add_tensor(name, gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0),
                     raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    def norm(name):
        w.add_tensor(name, np.ones(EMBD, np.float32))

    matrix("token_embd.weight", len(tokens), EMBD)
    kv = EMBD // HEADS * KV_HEADS
    for i in range(LAYERS):
        b = f"blk.{i}."
        norm(b + "attn_norm.weight")
        matrix(b + "attn_q.weight", EMBD, EMBD)
        matrix(b + "attn_k.weight", kv, EMBD)
        matrix(b + "attn_v.weight", kv, EMBD)
        matrix(b + "attn_output.weight", EMBD, EMBD)
        norm(b + "ffn_norm.weight")
        matrix(b + "ffn_gate.weight", FF, EMBD)
        matrix(b + "ffn_up.weight", FF, EMBD)
        matrix(b + "ffn_down.weight", EMBD, FF)
    norm("output_norm.weight")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


if __name__ == "__main__":
    make(sys.argv[1])
