#!/usr/bin/env python3
"""What rounding costs weights that were never quantised, and what training for it saves (QAT).

    bench/run.sh qat [--steps 600] [--tokens 16384] [--save] [--keep DIR]

A language model of bytes (llama, 1.2 M parameters) is trained in float32, with numpy, on plays (tools/get-text.sh plays). From there
three variants train on, with the same batches, rates and number of steps: one in float32, two with each matrix rounded to Q8_0 or Q4_0 in
the forward pass, as vramd rounds it, and the gradient passed straight through the rounding (Bengio et al., 2013). Each is written as a
folder of safetensors. `vramd quantize` makes files of them, and `vramd eval` measures these on Hamlet, which none has seen:
perplexity, and KL divergence from the float32 variant. With --save: bench/results/qat-CPU.json, a table of docs/techniques.md.

The seed fixes everything but the order of sums in matrix products. A step takes 0.5 s of one core, and the variants run beside each other: 600
and three times 150 steps take seven minutes on two idle cores, the measurements less than one."""

import argparse
import math
import os
import shutil
import struct
from concurrent.futures import ProcessPoolExecutor

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # matrices this small are slower on several, far slower on a busy machine
import numpy as np  # noqa: E402

from bench_common import *  # noqa: E402

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, INNER, CONTEXT = 128, 6, 4, 2, 32, 384, 256
END, VOCAB = 256, 258                    # the tokens behind the 256 bytes: the end, and two zero bytes (a BPE has a merge)
EPS, THETA = 1e-5, 10000.0
BATCH, SEED, PEAK, VARIANT_PEAK, DECAY = 4, 1, 3e-3, 5e-4, 0.1
VARIANTS = ("F32", "Q8_0", "Q4_0")

# ---- rounding, as the formats are defined ----


def inverse(d):
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)


def held(d):
    """A scale as a block has it: 16 bits."""
    return d.astype(np.float16).astype(np.float32)


def q8_0(w):
    b = w.reshape(-1, 32)
    d = np.abs(b).max(1, keepdims=True) / np.float32(127)
    x = b * inverse(d)
    return (np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)) * held(d)).reshape(w.shape)


def q4_0(w):
    b = w.reshape(-1, 32)
    d = np.take_along_axis(b, np.abs(b).argmax(1)[:, None], 1) / np.float32(-8)
    codes = np.minimum(np.trunc(b * inverse(d) + np.float32(8.5)), 15) - 8
    return (codes * held(d)).reshape(w.shape)


ROUND = {"F32": lambda w: w, "Q8_0": q8_0, "Q4_0": q4_0}

# ---- the model: forward, and the gradients backward ----


def new_parameters():
    r = np.random.default_rng(SEED)
    shapes = {"embed_tokens": (VOCAB, WIDTH), "lm_head": (VOCAB, WIDTH)}
    for i in range(LAYERS):
        shapes |= {f"{i} q": (HEADS * HEAD, WIDTH), f"{i} k": (KV_HEADS * HEAD, WIDTH), f"{i} v": (KV_HEADS * HEAD, WIDTH),
                   f"{i} o": (WIDTH, HEADS * HEAD), f"{i} gate": (INNER, WIDTH), f"{i} up": (INNER, WIDTH), f"{i} down": (WIDTH, INNER)}
    p = {}
    for name, shape in shapes.items():
        spread = 0.02 if name == "embed_tokens" else shape[1] ** -0.5
        if name.endswith((" o", " down")):  # they add to the residual stream, 2 LAYERS times
            spread /= math.sqrt(2 * LAYERS)
        p[name] = (r.standard_normal(shape) * spread).astype(np.float32)
    gains = [f"{i} {n}" for i in range(LAYERS) for n in ("attention", "mlp")] + ["last"]
    return p | {name: np.ones(WIDTH, np.float32) for name in gains}


def is_matrix(p, name):
    return p[name].ndim == 2


angle = np.outer(np.arange(CONTEXT), THETA ** (-np.arange(0, HEAD, 2) / HEAD))
COS, SIN = (np.concatenate([f(angle)] * 2, 1).astype(np.float32) for f in (np.cos, np.sin))


def rotated(x, back=1):
    """Pairs (i, i + HEAD / 2) turned by their position, or back by it (-1). x: [..., tokens, HEAD]"""
    n = x.shape[-2]
    half = np.concatenate([-x[..., HEAD // 2:], x[..., :HEAD // 2]], -1)
    return x * COS[:n] + half * (np.float32(back) * SIN[:n])


def norm(x, gain):
    r = 1 / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(EPS))
    y = x * r
    return y * gain, (y, r)


def norm_back(d, gain, kept):
    y, r = kept
    e = d * gain
    return r * (e - y * np.mean(e * y, -1, keepdims=True)), (d * y).sum(0)


def heads(x, b, n):
    """[b n, H HEAD] to [b, KV_HEADS, H / KV_HEADS, n, HEAD]"""
    return x.reshape(b, n, KV_HEADS, -1, HEAD).transpose(0, 2, 3, 1, 4)


def flat(x):
    b, _, _, n, _ = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b * n, -1)


def attend(q, k, v):
    n = q.shape[-2]
    s = q @ k.swapaxes(-1, -2) * np.float32(HEAD ** -0.5)
    s[..., np.triu(np.ones((n, n), bool), 1)] = -np.inf
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p @ v, p


def attend_back(d, q, k, v, p):
    over = dict(axis=2, keepdims=True)    # the query heads of a key head
    dp = d @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * np.float32(HEAD ** -0.5)
    return ds @ k, (ds.swapaxes(-1, -2) @ q).sum(**over), (p.swapaxes(-1, -2) @ d).sum(**over)


def layer(w, i, x, b, n):
    h, kept1 = norm(x, w[f"{i} attention"])
    q, k, v = (heads(h @ w[f"{i} {m}"].T, b, n) for m in "qkv")
    q, k = rotated(q), rotated(k)
    a, p = attend(q, k, v)
    a = flat(a)
    x = x + a @ w[f"{i} o"].T
    g, kept2 = norm(x, w[f"{i} mlp"])
    gate, up = g @ w[f"{i} gate"].T, g @ w[f"{i} up"].T
    s = 1 / (1 + np.exp(-gate))
    z = gate * s * up
    return x + z @ w[f"{i} down"].T, (h, kept1, q, k, v, p, a, g, kept2, gate, up, s, z)


def layer_back(w, i, d, kept, b, n, grad):
    h, kept1, q, k, v, p, a, g, kept2, gate, up, s, z = kept
    grad[f"{i} down"] = d.T @ z
    dz = d @ w[f"{i} down"]
    dup, dgate = dz * gate * s, dz * up * s * (1 + gate * (1 - s))
    grad[f"{i} up"], grad[f"{i} gate"] = dup.T @ g, dgate.T @ g
    dg, grad[f"{i} mlp"] = norm_back(dup @ w[f"{i} up"] + dgate @ w[f"{i} gate"], w[f"{i} mlp"], kept2)
    d = d + dg
    grad[f"{i} o"] = d.T @ a
    dq, dk, dv = attend_back(heads(d @ w[f"{i} o"], b, n), q, k, v, p)
    dh = 0
    for m, x in (("q", rotated(dq, -1)), ("k", rotated(dk, -1)), ("v", dv)):
        x = flat(x)
        grad[f"{i} {m}"] = x.T @ h
        dh = dh + x @ w[f"{i} {m}"]
    dh, grad[f"{i} attention"] = norm_back(dh, w[f"{i} attention"], kept1)
    return d + dh


def loss_and_gradients(w, tokens):
    """tokens: [b, n + 1]. Nats a token, and d loss / d w by name."""
    b, n = tokens.shape[0], tokens.shape[1] - 1
    given, wanted = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
    x, kept, grad = w["embed_tokens"][given], [], {}
    for i in range(LAYERS):
        x, k = layer(w, i, x, b, n)
        kept.append(k)
    h, last = norm(x, w["last"])
    s = h @ w["lm_head"].T
    s -= s.max(1, keepdims=True)
    e = np.exp(s)
    total = e.sum(1, keepdims=True)
    at = np.arange(b * n)
    loss = float(np.mean(np.log(total[:, 0]) - s[at, wanted]))
    d = e / total
    d[at, wanted] -= 1
    d /= np.float32(b * n)
    grad["lm_head"] = d.T @ h
    d, grad["last"] = norm_back(d @ w["lm_head"], w["last"], last)
    for i in reversed(range(LAYERS)):
        d = layer_back(w, i, d, kept[i], b, n, grad)
    grad["embed_tokens"] = np.zeros_like(w["embed_tokens"])
    np.add.at(grad["embed_tokens"], given, d)
    return loss, grad


# ---- training ----

def train(p, text, steps, peak, variant, name):
    """AdamW on p, in place; after a tenth of the steps the rate falls along a cosine. The batches depend on the number of steps alone."""
    r = np.random.default_rng([SEED, steps])
    mean, square = ({k: np.zeros_like(v) for k, v in p.items()} for _ in range(2))
    began, seen = time.monotonic(), None
    for step in range(1, steps + 1):
        rate = peak * min(1, 10 * step / steps) * (0.525 + 0.475 * math.cos(math.pi * step / steps))
        batch = np.stack([text[i:i + CONTEXT + 1] for i in r.integers(0, len(text) - CONTEXT, BATCH)]).astype(np.int64)
        w = {k: ROUND[variant](v) if is_matrix(p, k) else v for k, v in p.items()}
        loss, grad = loss_and_gradients(w, batch)
        clip = min(1, 1 / math.sqrt(sum(float(np.vdot(g, g)) for g in grad.values())))
        for k, g in grad.items():
            g = g * np.float32(clip)
            mean[k] = np.float32(0.9) * mean[k] + np.float32(0.1) * g
            square[k] = np.float32(0.95) * square[k] + np.float32(0.05) * g * g
            step_of = mean[k] / np.float32(1 - 0.9 ** step) / (np.sqrt(square[k] / np.float32(1 - 0.95 ** step)) + np.float32(1e-8))
            p[k] -= np.float32(rate) * (step_of + np.float32(DECAY if is_matrix(p, k) else 0) * p[k])
        seen = loss if seen is None else 0.95 * seen + 0.05 * loss
        if step % 50 == 0 or step == steps:
            print(f"{name}: step {step} of {steps}, {seen:.3f} nats a byte, {time.monotonic() - began:.0f} s", flush=True)
    return seen


# ---- the folder ----

def characters():
    """The characters by which byte-level tokenizers write the 256 bytes (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def hf_name(key):
    number, _, part = key.rpartition(" ")
    if not number:
        return {"embed_tokens": "model.embed_tokens.weight", "lm_head": "lm_head.weight", "last": "model.norm.weight"}[key]
    block = {"attention": "input_layernorm", "mlp": "post_attention_layernorm"}.get(part) or (
        f"self_attn.{part}_proj" if part in "qkvo" else f"mlp.{part}_proj")
    return f"model.layers.{number}.{block}.weight"


def write_folder(p, folder):
    folder.mkdir(parents=True)
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, a in p.items():
        raw = a.astype("<f4").tobytes()
        header[hf_name(key)] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "intermediate_size": INNER, "hidden_act": "silu",
        "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": False,
        "vocab_size": VOCAB, "eos_token_id": END, "torch_dtype": "float32"}))
    end = {"id": END, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [end], "normalizer": None, "post_processor": None, "decoder": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {**{c: b for b, c in characters().items()}, "<|endoftext|>": END, 2 * characters()[0]: END + 1},
                  "merges": [[characters()[0]] * 2]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


# ---- measuring ----

# (trained for, type of the weights, method, activations)
ROWS = [("F32", "F32", "rtn", "f32"), ("F32", "BF16", "rtn", "f32"), ("F32", "BF16", "rtn", "bf16"),
        ("F32", "Q8_0", "rtn", "f32"), ("F32", "Q8_0", "rtn", "int8"), ("Q8_0", "Q8_0", "rtn", "f32"), ("Q8_0", "Q8_0", "rtn", "int8"),
        ("F32", "Q4_0", "rtn", "f32"), ("F32", "Q4_0", "imatrix", "f32"), ("F32", "Q4_0", "awq", "f32"), ("F32", "Q4_0", "gptq", "f32"),
        ("Q4_0", "Q4_0", "rtn", "f32"), ("F32", "Q4_0", "rtn", "int8"), ("Q4_0", "Q4_0", "rtn", "int8"), ("Q4_0", "F32", "rtn", "f32")]


def measure(folder, fit, text, tokens):
    rows, reference = [], folder / "f32.ref"
    evaluate = ["--file", text, "--context", CONTEXT, "--tokens", tokens, "--kv-cache-dtype", "f32", "--json"]
    vramd("eval", folder / "F32", *evaluate, "--activation-dtype", "f32", "--write-reference", reference)
    for trained, kind, method, activations in ROWS:
        out = folder / f"{trained}-{kind}-{method}.gguf"
        if not out.exists():
            how = [] if method == "rtn" else ["--method", method, "--calibrate", fit, "--calibrate-tokens", 4096, "--no-check"]
            vramd("quantize", folder / trained, out, "--type", kind, "--pure", *how)
        j = json.loads(vramd("eval", out, *evaluate, "--activation-dtype", activations, "--other-weights", "--reference", reference))
        rows.append({"trained_for": trained, "type": kind, "method": method, "activations": activations, "bytes": out.stat().st_size,
                     "perplexity": j["perplexity"], "perplexity_ratio": j["perplexity_ratio"], "kl": j["kl"], "top1": j["top1"]})
        print(f"trained for {trained:5} weights {kind:5} {method:8} activations {activations:5} perplexity {j['perplexity']['value']:.4f}  "
              f"KL {j['kl']['value']:.6f} +- {j['kl']['se'] or 0:.6f}  top-1 {j['top1']['value']:.4f}", flush=True)
    return rows


def train_variant(p, text, steps, variant, folder):
    loss = train(p, text, steps, VARIANT_PEAK, variant, f"variant {variant}")
    write_folder(p, folder)
    return loss


def run(folder, steps, tokens, plays, hamlet):
    """Rows, and what is said of the training."""
    raw = plays.read_bytes()
    text = np.frombuffer(raw, np.uint8)
    began, p, losses = time.monotonic(), new_parameters(), {}
    losses["all"] = train(p, text, steps, PEAK, "F32", "float32")
    with ProcessPoolExecutor(THREADS) as pool:
        losses |= dict(zip(VARIANTS, pool.map(train_variant, *zip(*((p, text, max(1, steps // 4), variant, folder / variant) for variant in VARIANTS)))))
    said = {"parameters": sum(v.size for v in p.values()), "steps": steps, "tokens": tokens,
            "training_seconds": round(time.monotonic() - began), "training_loss": {k: round(v, 4) for k, v in losses.items()}}
    fit = folder / "fit.txt"
    fit.write_bytes(raw[:200000])
    return measure(folder, fit, hamlet, tokens), said


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=600, help="of the float32 model; the variants train on for a fourth of them")
    p.add_argument("--tokens", type=int, default=16384, help="of Hamlet")
    p.add_argument("--save", action="store_true")
    p.add_argument("--keep", type=Path, help="a folder for the models, which must not exist")
    o = p.parse_args()
    folder = o.keep or Path(tempfile.mkdtemp(prefix="qat-"))
    try:
        rows, said = run(folder, o.steps, o.tokens, text_of("plays"), text_of("hamlet"))
    finally:
        if not o.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if o.save:
        save("qat", rows, command="bench/run.sh qat --save", model_file="trained by bench/qat.py", **said,
             text="Hamlet, held out; trained on the other plays (tools/get-text.sh)")


if __name__ == "__main__":
    main()
