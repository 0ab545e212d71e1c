#!/usr/bin/env python3
"""Writes a model as it is published (config.json, safetensors, tokenizer.json, ...), and a GGUF file of
the same numbers, out of a GGUF file of llama or gemma3: for tests that compare the two.

    published.py FROM.gguf DIR TO.gguf F32|F16|BF16 [--shards N] [--packed KIND] [--group N] [--order WHICH]
                 [--scales F16|BF16|F32]

With --packed the matrices of the layers are rounded to nearest in groups and stored as GPTQ (gptq, gptq2, gptq3, gptq4z with zero
points, gptq8, gptq8z, gptq_v2), AWQ (awq) or compressed-tensors (int4, int4z, int8) store them; in the GGUF file as blocks of Q4_0,
Q5_0 or Q8_0 with the same differences of codes and zero points, and the same scales; of gptq8z, whose differences
do not fit one, as float32.

With --scales, they have that type, and the GGUF file has the numbers in float32. With --order all, the inputs of every matrix are in groups by chance (act order, g_idx), and the GGUF file has the numbers in float32.
With --order down, only those of ffn_down; --order folded writes the same model without: rows of ffn_gate and ffn_up in that order.

The names and the order of rows are transformers', the forms of tokenizer.json those of the tokenizers
library (documentation of both); it undoes what llama.cpp's convert_hf_to_gguf.py did to make FROM."""

import argparse
import json
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize

LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
GEMMA = {**LAYER, "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
MODEL = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def raw(x, t):
    """float32 to the bytes of a type, rounded to nearest even."""
    if t == Q.BF16:
        return quantize(x, Q.BF16).tobytes()
    return x.astype({Q.F16: np.float16, Q.F32: np.float32}[t]).tobytes()


def back(b, t, shape):
    if t == Q.BF16:
        return (np.frombuffer(b, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(b, {Q.F16: np.float16, Q.F32: np.float32}[t]).astype(np.float32).reshape(shape)


# kind: bits, with zero points
KINDS = {"gptq": (4, False), "gptq_v2": (4, False), "gptq2": (2, True), "gptq3": (3, True), "gptq4z": (4, True),
         "gptq8": (8, False), "gptq8z": (8, True), "awq": (4, True), "int4": (4, False), "int4z": (4, True), "int8": (8, False)}


def rounded(scale, t):
    return scale.astype(np.float16) if t == "F16" else back(raw(scale.astype(np.float32), Q[t]), Q[t], scale.shape)


def quantised(x, packed, group, scales="F16"):
    """Codes [N, K] from 0, zero points and scales [N, groups]; the last group may be short."""
    bits, zeros = KINDS[packed]
    n, k = x.shape
    most = 2 ** bits - 1
    parts = np.pad(x, ((0, 0), (0, -k % group))).reshape(n, -1, group)
    low, high = np.minimum(parts.min(2), 0), np.maximum(parts.max(2), 0)
    scale = rounded((high - low) / most if zeros else np.abs(parts).max(2) / (most // 2), scales)
    wide = np.where(scale == 0, scale.dtype.type(1), scale).astype(np.float32)
    zero = np.clip(np.rint(-low / wide), 0 if packed in ("awq", "int4z") else 1, most + (packed.startswith("gptq") and packed != "gptq_v2")
                   ) if zeros else np.full(scale.shape, 2 ** (bits - 1))
    codes = np.clip(np.rint(parts / wide[:, :, None]) + zero[:, :, None], 0, most).astype(np.int64).reshape(n, -1)[:, :k]
    return codes, zero.astype(np.int64), scale


def words(codes, axis, bits=4):
    """Codes along an axis as one stream of bits, the first in the lowest."""
    c = np.moveaxis(codes, axis, -1)
    stream = ((c[..., None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(*c.shape[:-1], -1)
    return np.moveaxis(np.packbits(stream, axis=-1, bitorder="little").view(np.uint32), -1, axis)


def awq_words(codes):
    """Eight outputs in a word: from the lowest four bits on 0, 2, 4, 6, 1, 3, 5, 7."""
    c = codes.reshape(codes.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].astype(np.uint32)
    return sum(c[:, :, i] << np.uint32(4 * i) for i in range(8)).astype(np.uint32)


def chance_order(name, k, group):
    """The inputs of a matrix, group after group: those of q, k and v alike, and those of gate and up."""
    _, layer, part, _ = name.split(".")
    same = {"attn_q": 0, "attn_k": 0, "attn_v": 0, "attn_output": 1, "ffn_gate": 2, "ffn_up": 2, "ffn_down": 3}[part]
    order = np.random.default_rng([int(layer), same]).permutation(k)
    return np.concatenate([np.sort(order[i:i + group]) for i in range(0, k, group)])


def spread(a, group, k):
    """[N, groups] to [N, K]."""
    return np.repeat(a, group, 1)[:, :k]


def stored_parts(codes, zero, scale, packed, group, order=None):
    """[(suffix, array, type)] of a linear layer; its inputs are in the order of a folder's user, codes come group after group."""
    if order is not None:
        g_idx = np.empty(len(order), np.int32)
        g_idx[order] = np.arange(len(order)) // group
        parts = stored_parts(codes[:, np.argsort(order)], zero, scale, packed, group)
        name = "g_idx" if packed.startswith("gptq") else "weight_g_idx"
        return [p for p in parts if p[0] != name] + [(name, g_idx, "I32")]
    n, k = codes.shape
    bits, zeros = KINDS[packed]
    across = np.ascontiguousarray
    if packed == "int8":
        return [("weight", (codes - 128).astype(np.int8), "I8"), ("weight_scale", scale, "F16")]
    if packed.startswith("int4"):
        parts = [("weight_packed", words(codes, 1), "I32"), ("weight_scale", scale, "F16"),
                 ("weight_shape", np.array([n, k], np.int64), "I64")]
        return parts + [("weight_zero_point", across(words(zero, 0)), "I32")] * zeros
    if packed == "awq":
        return [("qweight", awq_words(codes.T), "I32"), ("scales", across(scale.T), "F16"), ("qzeros", awq_words(zero.T), "I32")]
    return [("qweight", across(words(codes.T, 0, bits)), "I32"), ("scales", across(scale.T), "F16"),
            ("qzeros", across(words(zero.T - (packed != "gptq_v2"), 1, bits)), "I32"),
            ("g_idx", (np.arange(k) // group).astype(np.int32), "I32"), ("bias", np.zeros(n, np.float16), "F16")]


def block_type(packed):
    bits, zeros = KINDS[packed]
    return Q.Q8_0 if bits == 8 else Q.Q5_0 if bits == 4 and zeros else Q.Q4_0


def blocks(codes, zero, scale, packed, group):
    """The rows of that type."""
    n, k = codes.shape
    c = codes.reshape(n, k // 32, 32) - spread(zero, group // 32, k // 32)[:, :, None]
    d = np.ascontiguousarray(spread(scale, group // 32, k // 32)).reshape(n, k // 32, 1).view(np.uint8).reshape(n, k // 32, 2)
    t = block_type(packed)
    if t == Q.Q8_0:
        return np.concatenate([d, c.astype(np.int8).view(np.uint8)], 2).reshape(n, -1)
    c = c + (16 if t == Q.Q5_0 else 8)
    high = np.packbits((c >> 4).astype(np.uint8), axis=2, bitorder="little")
    low = ((c[:, :, :16] & 15) | (c[:, :, 16:] & 15) << 4).astype(np.uint8)
    return np.concatenate([d, *([high] if t == Q.Q5_0 else []), low], 2).reshape(n, -1)


def quantization_config(packed, group):
    bits, zeros = KINDS[packed]
    if packed.startswith("gptq"):
        return {"quant_method": "gptq", "bits": bits, "sym": not zeros, "desc_act": packed == "gptq", "group_size": group,
                "checkpoint_format": "gptq_v2" if packed == "gptq_v2" else "gptq"}
    if packed == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    weights = {"num_bits": bits, "type": "int", "symmetric": not zeros, "strategy": "group" if bits == 4 else "channel",
               "group_size": group if bits == 4 else None, "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized" if bits == 4 else "int-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


E4M3 = np.array([(c >> 3 and 2.0 ** ((c >> 3) - 7) * (1 + (c & 7) / 8)) or (c & 7) * 2.0 ** -9 for c in range(127)], np.float32)


def fp8_parts(x, packed):
    """[(suffix, bytes, shape, type)] of a matrix in FP8, a scale for each output or for blocks of 64 x 64, and its numbers."""
    n, k = x.shape
    rows, cols = (64, 64) if packed.startswith("fp8_block") else (1, k) if packed == "fp8" else (n, k)
    down, across = -(-n // rows), -(-k // cols)
    wide = np.zeros((down * rows, across * cols), np.float32)
    wide[:n, :k] = np.abs(x)
    scale = np.maximum(wide.reshape(down, rows, across, cols).max((1, 3)) / 448, 1e-6).astype(np.float32)
    each = np.repeat(np.repeat(scale, rows, 0), cols, 1)[:n, :k]
    middle = (E4M3[1:] + E4M3[:-1]) / 2
    codes = np.searchsorted(middle, np.abs(x) / each).astype(np.uint8)
    y = np.where(x < 0, -E4M3[codes], E4M3[codes]) * each
    name, shape = ("weight_scale_inv" if packed == "fp8_block" else "weight_scale", [down, across]) if rows == 64 else ("weight_scale", [n, 1] if packed == "fp8" else [1])
    parts = [("weight", (codes | (x < 0).astype(np.uint8) << 7).tobytes(), [n, k], "F8_E4M3"), (name, scale.tobytes(), shape, "F32")]
    return parts + [("input_scale", np.ones(1, np.float32).tobytes(), [1], "F32")] * (packed == "fp8_one"), y.astype(np.float32)


FP8 = {"fp8_block": {"quant_method": "fp8", "weight_block_size": [64, 64], "activation_scheme": "dynamic"},
       "fp8_one": {"quant_method": "fp8", "activation_scheme": "static"},
       "fp8": {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
           "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}}}},
       "fp8_blocks": {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {
           "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "block",
                                              "block_structure": [64, 64]},
           "input_activations": {"num_bits": 8, "type": "float", "dynamic": True, "strategy": "group", "group_size": 64}}}}}


class Model:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.fields = self.reader.fields
        self.arch = self.fact("general.architecture")
        self.gemma = self.arch == "gemma3"
        assert self.gemma or self.arch == "llama", self.arch
        self.heads, self.kv_heads = self.of("attention.head_count"), self.of("attention.head_count_kv")
        self.width = self.of("embedding_length")
        self.head = self.of("attention.key_length", self.width // self.heads)
        self.tied = all(t.name != "output.weight" for t in self.reader.tensors)

    def fact(self, key, default=None):
        f = self.fields.get(key)
        return f.contents() if f else default

    def of(self, key, default=None):
        return self.fact(f"{self.arch}.{key}", default)

    def hf_name(self, name):
        if name in MODEL:
            return MODEL[name]
        _, layer, part, kind = name.split(".")
        return f"model.layers.{layer}.{(GEMMA if self.gemma else LAYER)[part]}.{kind}"

    def stored(self, t, to):
        """A tensor's bytes in the folder, and its numbers in the GGUF file."""
        x = dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in reversed(t.shape)])
        norm = x.ndim == 1
        b = raw(x - 1 if norm and self.gemma else x, to)
        y = back(b, to, x.shape)
        if norm and self.gemma:
            y = y + np.float32(1)
        if not self.gemma and (".attn_q." in t.name or ".attn_k." in t.name):
            rows, cols = x.shape
            b = raw(y.reshape(rows // self.head, self.head // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols), to)
        return b, y

    def config(self, to):
        c = {"architectures": ["Gemma3ForCausalLM" if self.gemma else "LlamaForCausalLM"],
             "model_type": "gemma3_text" if self.gemma else "llama", "hidden_size": self.width,
             "num_hidden_layers": self.of("block_count"), "num_attention_heads": self.heads,
             "num_key_value_heads": self.kv_heads, "head_dim": self.head, "intermediate_size": self.of("feed_forward_length"),
             "max_position_embeddings": self.of("context_length"), "rms_norm_eps": self.of("attention.layer_norm_rms_epsilon"),
             "rope_theta": self.of("rope.freq_base", 10000.0), "tie_word_embeddings": self.tied,
             "vocab_size": len(self.fact("tokenizer.ggml.tokens")),
             **{f"{k}_token_id": self.fact(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos")},
             "torch_dtype": {Q.F32: "float32", Q.F16: "float16", Q.BF16: "bfloat16"}[to]}
        if self.gemma:
            c |= {"sliding_window": self.of("attention.sliding_window"), "query_pre_attn_scalar": self.head,
                  "sliding_window_pattern": 6, "rope_local_base_freq": 10000.0}
        else:
            c |= {"hidden_act": "silu"}
        return c


def pairs_by_score(tokens, types, scores):
    """The merges of SentencePiece's pieces: each way to join two, by the score of what they make."""
    ids = {t: i for i, t in enumerate(tokens) if types[i] in (1, 4)}
    found = []
    for t, i in ids.items():
        if types[i] == 1:
            found += [(-scores[i], i, k, t[:k], t[k:]) for k in range(1, len(t)) if t[:k] in ids and t[k:] in ids]
    return [[a, b] for *_, a, b in sorted(found)]


def tokenizer(m):
    tokens, types = m.fact("tokenizer.ggml.tokens"), m.fact("tokenizer.ggml.token_type")
    pieces = m.fact("tokenizer.ggml.model") == "llama"
    low = "\u2581"
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": types[i] in (2, 3)} for i, t in enumerate(tokens) if types[i] in (2, 3, 4)]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>" if pieces else None, "byte_fallback": pieces,
             "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens) if types[i] != 5}}
    if pieces:
        model["merges"] = pairs_by_score(tokens, types, m.fact("tokenizer.ggml.scores"))
        norm, pre = {"type": "Replace", "pattern": {"String": " "}, "content": low}, None
        if m.fact("tokenizer.ggml.add_space_prefix", True):
            norm = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": low}, norm]}
    else:
        model["merges"] = m.fact("tokenizer.ggml.merges")
        norm = None
        pre = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        if m.fact("tokenizer.ggml.pre") == "smollm":
            pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, pre]}
        else:
            assert m.fact("tokenizer.ggml.pre") == "gpt-2"
    single = [{"Sequence": {"id": "A", "type_id": 0}}]
    if m.fact("tokenizer.ggml.add_bos_token", pieces):
        single.insert(0, {"SpecialToken": {"id": tokens[m.fact("tokenizer.ggml.bos_token_id")], "type_id": 0}})
    return {"version": "1.0", "added_tokens": added, "normalizer": norm, "pre_tokenizer": pre,
            "post_processor": {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}},
            "decoder": None, "model": model}


def safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for key, b, shape, name in tensors:
        header[key] = {"dtype": name, "shape": shape, "data_offsets": [at, at + len(b)]}
        at += len(b)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, b, *_ in tensors:
            f.write(b)


def write_gguf(m, path, numbers, to, packed):
    w = gguf.GGUFWriter(path, m.arch)
    for f in m.fields.values():
        if f.name.startswith(("GGUF.", "general.architecture", "general.file_type", "general.quantization")):
            continue
        w.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    for name, y in numbers:
        if y.ndim == 1:
            w.add_tensor(name, y)
        elif y.dtype == np.uint8:
            w.add_tensor(name, y, raw_dtype=block_type(packed))
        else:
            dtype = {Q.F32: np.float32, Q.F16: np.float16, Q.BF16: np.uint8}[to]
            w.add_tensor(name, np.frombuffer(raw(y, to), dtype).reshape(len(y), -1), raw_dtype=to)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def permuted(m, name, a):
    """The rows of a matrix of the folder in the order of the GGUF file."""
    if m.gemma or not (".attn_q." in name or ".attn_k." in name):
        return a
    return a.reshape(len(a) // m.head, 2, m.head // 2, -1).swapaxes(1, 2).reshape(a.shape)


def numbers_of(codes, zero, scale, group, order):
    k = codes.shape[1]
    y = (codes - spread(zero, group, k)).astype(np.float32) * spread(scale.astype(np.float32), group, k)
    return y if order is None else y[:, np.argsort(order)]


def reordered(x, name, which, group):
    """A matrix as it is quantised, and the order of inputs to store with it or None."""
    layer, part = name.split(".")[1:3]
    if which == "all" or (which == "down" and part == "ffn_down"):
        order = chance_order(name, x.shape[1], group)
        return x[:, order], order
    if which == "folded" and part == "ffn_down":
        return x[:, chance_order(name, x.shape[1], group)], None
    if which == "folded" and part in ("ffn_gate", "ffn_up"):
        return x[chance_order(f"blk.{layer}.ffn_down.weight", len(x), group)], None
    return x, None


def write(source, folder, to_gguf, type_name, shards=1, packed=None, group=32, order=None, scales="F16"):
    m, to, folder = Model(source), Q[type_name], Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, numbers = [], []
    for t in m.reader.tensors:
        b, y = m.stored(t, to)
        if packed in FP8 and t.name.startswith("blk.") and y.ndim == 2:
            parts, held = fp8_parts(back(b, to, y.shape), packed)
            tensors += [(m.hf_name(t.name).removesuffix("weight") + name, *rest) for name, *rest in parts]
            numbers.append((t.name, permuted(m, t.name, held)))
            continue
        if packed and t.name.startswith("blk.") and y.ndim == 2:
            each = y.shape[1] if packed == "int8" else group
            x, by = reordered(back(b, to, y.shape), t.name, order, each)
            parts = quantised(x, packed, each, scales)
            base = m.hf_name(t.name).removesuffix("weight")
            tensors += [(base + part, raw(a, Q[scales]) if part.startswith(("scales", "weight_scale")) else a.tobytes(), list(a.shape),
                         scales if part.startswith(("scales", "weight_scale")) else kind)
                        for part, a, kind in stored_parts(*parts, packed, each, by)]
            mine = [permuted(m, t.name, a) for a in parts]
            numbers.append((t.name, blocks(*mine, packed, each) if by is None and scales == "F16" and packed != "gptq8z" else numbers_of(*mine, each, by)))
            continue
        tensors.append((m.hf_name(t.name), b, list(y.shape), type_name))
        numbers.append((t.name, y))
    if to_gguf:
        write_gguf(m, to_gguf, numbers, to, packed)
    if shards == 1:
        safetensors(folder / "model.safetensors", tensors)
    else:
        where = {}
        for i in range(shards):
            name = f"model-{i + 1:05}-of-{shards:05}.safetensors"
            safetensors(folder / name, tensors[i::shards])
            where |= {key: name for key, *_ in tensors[i::shards]}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config = m.config(to)
    if packed:
        config["quantization_config"] = FP8.get(packed) or quantization_config(packed, group)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(m), ensure_ascii=False))
    tokens = m.fact("tokenizer.ggml.tokens")
    ids = {k: m.fact(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos")}
    (folder / "tokenizer_config.json").write_text(json.dumps({f"{k}_token": tokens[i] for k, i in ids.items() if i is not None}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [i for k, i in ids.items() if k == "eos" and i is not None],
                                                               "temperature": 0.7, "top_k": 40}))
    if m.fact("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(m.fact("tokenizer.chat_template"))
    return m


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("source")
    a.add_argument("folder")
    a.add_argument("gguf")
    a.add_argument("type", choices=["F32", "F16", "BF16"])
    a.add_argument("--shards", type=int, default=1)
    a.add_argument("--packed", choices=[*KINDS, *FP8])
    a.add_argument("--group", type=int, default=32)
    a.add_argument("--order", choices=["all", "down", "folded"])
    a.add_argument("--scales", choices=["F16", "BF16", "F32"], default="F16")
    a = a.parse_args()
    write(a.source, a.folder, a.gguf, a.type, a.shards, a.packed, a.group, a.order, a.scales)
