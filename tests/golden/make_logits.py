#!/usr/bin/env python3
"""Makes the golden logits: what an independent implementation says of the same GGUF file.

    VRAMD_PEER_LLAMA=/path/to/llama.cpp/build/bin python tests/golden/make_logits.py MODEL.gguf
    ... tests/golden/make_logits.py --name gemma-3-270m-q4_k_m gemma-3-270m.Q4_K_M.gguf

Reference: transformers in float32, eager attention, on the weights that `gguf` (llama.cpp's
Python package) dequantises from the very same file. Llama's GGUF files hold the rows of q and k
permuted for rotary pairs (2i, 2i+1); transformers pairs (i, i + n/2), so the rows go back first.
Gemma's hold 1 + w of the norms; 1 is taken off. transformers' own GGUF loader serves as a second
opinion: every tensor must be equal. Gemma's prompts begin with its BOS and are tokenised by vramd.

Also llama.cpp itself (peer_logits.py): its mean KL divergence from
the reference on the same positions is the bar that the int8 engine has to meet.

Two sets of positions, a file each, since KL has a long tail:
    NAME.bin       32 positions a prompt, spread evenly, top 256: 256 positions. Good for 1e-5, but
                   the ratio of two noisy engines' means over so few is known to +-20% only.
    NAME-all.bin   every position (Gemma: every second) from the fifth on, top 16 (the coarser KL is 15% lower, for both
                   engines alike): the ratio is known to +-5% (the bootstrap interval in NAME.json).

Needs torch, transformers, accelerate, gguf, numpy; tests need none of them: they read the output,
    tests/golden/logits/*.bin       for tests/engine/test_golden.c, little-endian:
        char magic[8] = "VRGOLD2\\0", or "VRGOLD3\\0": then ids are u32; char model_sha256[64]; char peer[128] (what it is, NUL-padded)
        u32 n_vocab, n_top, n_prompts, n_greedy; f64 peer_kl (mean over all positions, nats)
        n_prompts times:
            char name[16]; u32 n_tokens, n_positions; f64 peer_kl (mean over its positions)
            i32 tokens[n_tokens]; i32 positions[n_positions] (ascending)
            n_positions times: f32 log_rest; u16 ids[n_top]; f32 logprobs[n_top]
                                    best first; log_rest: log of the mass of all other tokens
        n_greedy times:
            char name[16]; u32 n_prompt, n_tokens; i32 prompt[n_prompt]
            n_tokens times: i32 best, second; f32 margin (logit of best - logit of second)
    tests/golden/logits/NAME.json   the same figures for people, and where they come from
KL here is coarse-grained: over the reference's n_top tokens and one bucket for the rest.
"""

import argparse
import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, GgufConfig,
                          LlamaConfig, LlamaForCausalLM)
import transformers

from peer_logits import peer_logits

HERE = Path(__file__).resolve().parent
SETS = {"": 256, "-all": 16}  # file suffix: n_top
SKIP = 4  # of "-all": the first positions, where every engine is alike


def field(reader, key):
    return reader.fields[key].contents()


def llama_config(reader):
    a = "llama."
    heads = field(reader, a + "attention.head_count")
    return LlamaConfig(
        vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
        hidden_size=field(reader, a + "embedding_length"),
        intermediate_size=field(reader, a + "feed_forward_length"),
        num_hidden_layers=field(reader, a + "block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(reader, a + "attention.head_count_kv"),
        head_dim=field(reader, a + "embedding_length") // heads,
        max_position_embeddings=field(reader, a + "context_length"),
        rms_norm_eps=field(reader, a + "attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field(reader, a + "rope.freq_base")},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )


def gemma3_config(reader):
    a = "gemma3."
    return Gemma3TextConfig(
        vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
        hidden_size=field(reader, a + "embedding_length"),
        intermediate_size=field(reader, a + "feed_forward_length"),
        num_hidden_layers=field(reader, a + "block_count"),
        num_attention_heads=field(reader, a + "attention.head_count"),
        num_key_value_heads=field(reader, a + "attention.head_count_kv"),
        head_dim=field(reader, a + "attention.key_length"),
        query_pre_attn_scalar=field(reader, a + "attention.key_length"),
        max_position_embeddings=field(reader, a + "context_length"),
        rms_norm_eps=field(reader, a + "attention.layer_norm_rms_epsilon"),
        sliding_window=field(reader, a + "attention.sliding_window"),
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": field(reader, a + "rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )


def unpermute(w, n_heads):
    """Rows (2i, 2i+1) of each head back to (i, i + n/2)."""
    rows, cols = w.shape
    return w.reshape(n_heads, rows // n_heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA_NAMES = NAMES | {
    "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}

def load_reference(path):
    reader = gguf.GGUFReader(path)
    gemma = field(reader, "general.architecture") == "gemma3"
    config = gemma3_config(reader) if gemma else llama_config(reader)
    names = GEMMA_NAMES if gemma else NAMES
    state = {}
    for t in reader.tensors:
        w = np.asarray(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32)
        part = t.name.split(".")
        if gemma and "norm" in t.name:
            w = w - np.float32(1)
        if part[0] == "blk":
            if part[2] == "attn_q" and not gemma:
                w = unpermute(w, config.num_attention_heads)
            if part[2] == "attn_k" and not gemma:
                w = unpermute(w, config.num_key_value_heads)
            name = f"model.layers.{part[1]}.{names[part[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight",
                    "output": "lm_head.weight"}[part[0]]
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    tied = "lm_head.weight" not in state
    config.tie_word_embeddings = tied
    model = (Gemma3ForCausalLM if gemma else LlamaForCausalLM)(config).to(torch.float32).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if tied else set()), (missing, unexpected)
    model.tie_weights()
    return model, gemma


def check_against_loader(model, path):
    """transformers' own GGUF loader gives the same tensors."""
    other = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32,
        quantization_config=GgufConfig(gguf_file=path.name, dequantize=True)).state_dict()
    mine = model.state_dict()
    worst = 0.0
    for name, w in mine.items():
        worst = max(worst, float((w - other[name].to(torch.float32)).abs().max()))
    assert worst <= 1e-6, f"the two loaders differ by {worst}"
    return worst


@torch.no_grad()
def all_logits(model, tokens):
    return model(torch.tensor([tokens])).logits[0].numpy()


@torch.no_grad()
def greedy(model, prompt, n):
    """Tokens chosen, runners-up and margins; every step recomputed from the start."""
    tokens, rows = list(prompt), []
    for _ in range(n):
        top = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        rows.append((int(top.indices[0]), int(top.indices[1]), float(top.values[0] - top.values[1])))
        tokens.append(rows[-1][0])
    return rows


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def rest_of(lp, ids):
    """log of the mass outside ids."""
    rest = lp.copy()
    np.put_along_axis(rest, ids, -np.inf, -1)
    return np.log(np.exp(rest).sum(-1))


def coarse(logits, n_top):
    """ids [n, n_top], logprobs [n, n_top], log of the rest [n]."""
    parts = [coarse_rows(logits[at:at + 64], n_top) for at in range(0, len(logits), 64)]
    return tuple(np.concatenate(x) for x in zip(*parts))


def coarse_rows(logits, n_top):
    lp = log_softmax(logits.astype(np.float64))
    ids = np.argsort(-lp, axis=-1, kind="stable")[:, :n_top]
    return ids, np.take_along_axis(lp, ids, -1), rest_of(lp, ids)


def kl(ref, logits):
    """KL(ref || logits) of each position, [n]."""
    out = []
    for at in range(0, len(logits), 64):
        ids, top, log_rest = (x[at:at + 64] for x in ref)
        lq = log_softmax(logits[at:at + 64].astype(np.float64))
        q_top = np.take_along_axis(lq, ids, -1)
        out.append((np.exp(top) * (top - q_top)).sum(-1) + np.exp(log_rest) * (log_rest - rest_of(lq, ids)))
    return np.concatenate(out)


def cpu_field(name):
    for line in open("/proc/cpuinfo"):
        if line.startswith(name):
            return line.split(":", 1)[1].strip()
    return ""


def cpu_flags():
    return [f for f in cpu_field("flags").split() if f.startswith(("avx", "amx", "fma", "f16c"))]


def write_bin(path, meta, suffix, prompts, greedy_rows):
    n_top = SETS[suffix]
    wide = meta["n_vocab"] > 65536
    with open(path, "wb") as f:
        f.write((b"VRGOLD3\0" if wide else b"VRGOLD2\0") + meta["model_sha256"].encode() + meta["peer"]["what"].encode().ljust(128, b"\0")[:128])
        f.write(struct.pack("<4Id", meta["n_vocab"], n_top, len(prompts), len(greedy_rows),
                            meta["peer"]["mean_kl" + suffix]))
        for p in prompts:
            s = p["sets"][suffix]
            ids, top, rest = s["ref"]
            f.write(p["name"].encode().ljust(16, b"\0"))
            f.write(struct.pack("<2Id", len(p["tokens"]), len(s["positions"]), s["peer"].mean()))
            f.write(np.array(p["tokens"], "<i4").tobytes() + np.array(s["positions"], "<i4").tobytes())
            for i in range(len(s["positions"])):
                f.write(struct.pack("<f", rest[i]) + ids[i].astype("<u4" if wide else "<u2").tobytes() + top[i].astype("<f4").tobytes())
        for g in greedy_rows:
            f.write(g["name"].encode().ljust(16, b"\0") + struct.pack("<2I", len(g["prompt"]), len(g["rows"])))
            f.write(np.array(g["prompt"], "<i4").tobytes())
            for best, second, margin in g["rows"]:
                f.write(struct.pack("<2if", best, second, margin))


def positions_of(suffix, n_tokens, n, stride):
    if suffix == "-all":
        return np.arange(SKIP, n_tokens, stride)
    return np.linspace(0, n_tokens - 1, n).round().astype(int)


def study(p, model, peer, n, stride):
    """Reference and peer on one prompt: fills p["sets"]."""
    logits = all_logits(model, p["tokens"])
    p["sets"] = {}
    for suffix, n_top in SETS.items():
        at = positions_of(suffix, len(p["tokens"]), n, stride)
        p["sets"][suffix] = {"positions": at, "ref": coarse(logits[at], n_top), "flash": {}}
    del logits
    for flash in (False, True):
        theirs = peer(p["tokens"], flash)
        for s in p["sets"].values():
            s["flash"][flash] = kl(s["ref"], theirs[s["positions"]])
        del theirs
    double = all_logits(model.double(), p["tokens"])
    model.float()
    for s in p["sets"].values():
        s["float64"] = kl(s["ref"], double[s["positions"]])
    print(f"{p['name']}: {len(p['tokens'])} tokens", file=sys.stderr)


def prompts_of(spec, gemma):
    """The prompts as (name, text, tokens at most, tokens that the reference adds)."""
    text = {p["name"]: p["text"] for p in spec["prompts"]}
    if not gemma:
        return [(p["name"], p["text"], None, p["reference_tokens"]) for p in spec["prompts"]]
    return [(p["name"], "\n\n".join(text[n] for n in p["of"]), p.get("tokens"), p.get("reference_tokens", 0))
            for p in spec["gemma"]]


def vramd_tokens(path, text):
    out = subprocess.run([HERE.parent.parent / "build/vramd", "tokenize", "--json", path], input=text.encode(),
                         stdout=subprocess.PIPE, check=True).stdout
    ids = json.loads(out)
    return ids["tokens"] if isinstance(ids, dict) else ids


def bootstrap(a, b):
    """5% and 95% of mean(a) / mean(b) over resampled positions: how well such a ratio is known."""
    at = np.random.default_rng(0).integers(0, len(a), (2000, len(a)))
    return [round(float(x), 3) for x in np.percentile(a[at].mean(1) / b[at].mean(1), [5, 95])]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model", type=Path)
    ap.add_argument("--name", default="smollm2-135m-q4_1")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    args = ap.parse_args()
    if "VRAMD_PEER_LLAMA" not in os.environ:
        sys.exit("make_logits: VRAMD_PEER_LLAMA must name llama.cpp's build/bin (bench/build_peer.sh makes one)")
    bin_dir = Path(os.environ["VRAMD_PEER_LLAMA"]).resolve()
    torch.set_num_threads(args.threads)
    spec = json.load(open(HERE / "prompts.json"))
    n = spec["positions"]

    model, gemma = load_reference(args.model)
    worst = check_against_loader(model, args.model)
    tok = AutoTokenizer.from_pretrained(args.model.parent, gguf_file=args.model.name)
    encode = lambda text: tok(text, add_special_tokens=False)["input_ids"]
    if gemma:
        encode = lambda text: vramd_tokens(args.model, text)
    n_vocab = model.config.vocab_size

    prompts = []
    with tempfile.TemporaryDirectory() as folder:
        peer = lambda tokens, flash: peer_logits(bin_dir, args.model, tokens, n_vocab, args.threads, flash, folder)
        for name, text, most, more in prompts_of(spec, gemma):
            tokens = encode(text)[:most]
            tokens += [r[0] for r in greedy(model, tokens, more)]
            prompts.append({"name": name, "tokens": tokens})
            study(prompts[-1], model, peer, n, 2 if gemma else 1)
    greedy_rows = []
    for g in spec["greedy"]:
        tokens = encode(g["text"])
        greedy_rows.append({"name": g["name"], "prompt": tokens, "rows": greedy(model, tokens, 64)})

    over = lambda suffix, key: np.concatenate([key(p["sets"][suffix]) for p in prompts])
    by_flash = {f: float(over("-all", lambda s: s["flash"][f]).mean()) for f in (False, True)}
    best = min(by_flash, key=by_flash.get)
    for p in prompts:
        for s in p["sets"].values():
            s["peer"] = s["flash"][best]
    version = os.environ.get("VRAMD_PEER_VERSION", "llama-cpp-python 0.3.36's llama.cpp")
    figures = {}
    for suffix in SETS:
        flash = {f: over(suffix, lambda s: s["flash"][f]) for f in (False, True)}
        figures |= {"mean_kl" + suffix: float(flash[best].mean()),
                    "positions" + suffix: len(flash[best]),
                    "mean_kl_flash_off" + suffix: float(flash[False].mean()),
                    "mean_kl_flash_on" + suffix: float(flash[True].mean()),
                    "noise_of_a_ratio" + suffix: bootstrap(flash[False], flash[True])}
    meta = {
        "model": args.model.name,
        "model_sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
        "n_vocab": n_vocab, "n_top": SETS,
        "reference": {"what": "transformers float32, eager attention, weights by gguf.dequantize",
                      "torch": torch.__version__, "transformers": transformers.__version__,
                      "worst_weight_difference_of_the_two_loaders": worst,
                      "mean_kl_of_float64_from_it": float(over("", lambda s: s["float64"]).mean())},
        "peer": {"what": f"{version}, CPU, {args.threads} threads, KV f16, batch = prompt, flash attention "
                         f"{'on' if best else 'off'}",
                 **figures, "cpu": cpu_field("model name"), "cpu_flags": " ".join(cpu_flags())},
        "prompts": [{"name": p["name"], "n_tokens": len(p["tokens"]),
                     **{"peer_mean_kl" + s: float(p["sets"][s]["peer"].mean()) for s in SETS}} for p in prompts],
        "greedy": [{"name": g["name"], "n_prompt": len(g["prompt"]),
                    "text": tok.decode([r[0] for r in g["rows"]]),
                    "near_ties": [{"step": i, "margin": round(r[2], 4), "best": tok.decode([r[0]]),
                                   "second": tok.decode([r[1]])} for i, r in enumerate(g["rows"]) if r[2] < 0.3]}
                   for g in greedy_rows],
    }
    out = HERE / "logits"
    out.mkdir(exist_ok=True)
    for suffix in SETS:
        write_bin(out / f"{args.name}{suffix}.bin", meta, suffix, prompts, [] if suffix else greedy_rows)
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    (out / f"{args.name}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
