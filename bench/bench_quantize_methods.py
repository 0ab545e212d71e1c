#!/usr/bin/env python3
"""What each method of `vramd quantize` loses at equal bits, by KL divergence from float32 weights, on three kinds of text.

    bench/run.sh quantize_methods [--tokens 20480] [--fit 8192] [--texts prose,code,chinese] [--save] [METHOD:TYPE[:ACTIVATIONS] ...]
    bench/bench_quantize_methods.py --table FILE       the table of docs/quantize.md

The model is the test model (tools/get-model.sh) with its channels rescaled in pairs, so that its weights lie on no grid
(bench/quant_source.py). Methods calibrate on all of TEXTS at once, in equal parts, and are evaluated on other texts of each kind. METHOD is
one of `vramd quantize`, or, with VRAMD_PEER_LLAMA, pure or llama: vramd and llama-quantize with the same importance matrix, every matrix in
TYPE (--pure). Ends with 1 where one of BARS is missed. With --save: bench/results/quantize-methods-CPU.json, whose rows of other methods stay if they
were measured on as many tokens and fitted alike. KL depends on no other load of the machine. On two idle cores a row takes a minute with
2,048 tokens."""

import argparse
import sys

import weights
from bench_common import *

ROWS = ("rtn:Q4_1 awq:Q4_1 gptq:Q4_1 rtn:Q8_0:int8 smooth:Q8_0:int8 imatrix:Q4_1 awq+gptq:Q4_1 rtn:Q4_0 imatrix:Q4_0 gptq:Q4_0 "
        "rtn:Q4_K imatrix:Q4_K gptq:Q4_K").split()
PEER_TYPES = "Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS IQ4_NL".split()
if peer_bin():
    ROWS += [f"{who}:{kind}" for kind in PEER_TYPES for who in ("llama", "pure")]
BUILT_IN = ROOT / "daemon" / "quantize" / "texts"
# row, text, the most that its KL may be, as a share of another row's (None: nats)
BARS = [("gptq:Q4_1", "prose", 0.3, "rtn:Q4_1"), ("awq:Q4_1", "prose", 0.5, "rtn:Q4_1"), ("rtn:Q8_0:int8", "prose", 0.008, None),
        ("smooth:Q8_0:int8", "prose", 0.015, None),
        *((f"{method}:Q4_1", text, 1, "rtn:Q4_1") for method in ("awq", "gptq", "awq+gptq") for text in ("prose", "code", "chinese")),
        *((f"pure:{kind}", "prose", 1, f"llama:{kind}") for kind in PEER_TYPES)]


def sources(*folders):
    return "".join(f.read_text() for folder in folders for f in sorted((ROOT / folder).glob("*.c")))


# kind: what is calibrated on, what is evaluated
TEXTS = {"prose": lambda: (text_of("plays").read_text(), text_of("hamlet").read_text()),
         "code": lambda: (sources("scheduler", "engine/cpu"), sources("text/jinja")),
         "chinese": lambda: ((BUILT_IN / "chinese.txt").read_text(), (ROOT / "README.zh-CN.md").read_text())}


def quantise(source, out, method, kind, how, imatrix):
    """As weights.quantise; of the methods pure and llama, too, which take the importance matrix."""
    if method not in ("llama", "pure"):
        return weights.quantise(source, out, kind, method, how, imatrix)
    if not imatrix.exists():
        weights.quantise(source, out, "Q8_0", "imatrix", how, imatrix)
    if method == "llama":
        words = ["--pure", "--imatrix", imatrix, source, out, {"Q2_K": "Q2_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S", "Q3_K": "Q3_K_S"}.get(kind, kind)]
        subprocess.run([peer_bin() / "llama-quantize", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return
    vramd("quantize", source, out, "--type", kind, "--force", "--pure", "--method", "imatrix", "--imatrix", imatrix)


def measure(o, folder):
    """Rows, one after the other as they are ready."""
    source, out, how = folder / "source.gguf", folder / "out.gguf", []
    python = subprocess.check_output([ROOT / "tools" / "venv.sh"], text=True).strip()
    subprocess.run([python, ROOT / "bench" / "quant_source.py", model_path(), source], check=True)
    for name in o.texts:
        for what, text in zip(("fit", "held"), TEXTS[name]()):
            (folder / f"{name}.{what}").write_text(text)
        how += ["--calibrate", folder / f"{name}.fit"]
        vramd("eval", source, "--file", folder / f"{name}.held", "--context", 512, "--tokens", o.tokens, "--activation-dtype", "f32",
              "--write-reference", folder / f"{name}.ref")
    how += ["--calibrate-tokens", o.fit, "--no-check"]
    for row in o.rows or ROWS:
        method, kind, activations = (row.split(":") + ["f32"])[:3]
        quantise(source, out, method, kind, how, folder / "imatrix.gguf")
        for name in o.texts:
            j = json.loads(vramd("eval", out, "--file", folder / f"{name}.held", "--other-weights", "--reference", folder / f"{name}.ref",
                                 "--activation-dtype", activations, "--json"))
            yield {"row": row, "method": method, "type": kind, "activations": activations, "text": name, "calibrated_on": ",".join(o.texts),
                   "tokens": o.tokens, "predicted": j["text"]["predicted"], "fit": o.fit, "bytes": out.stat().st_size, "kl": j["kl"],
                   "top1": j["top1"], "perplexity_ratio": j["perplexity_ratio"]}


def missed(rows):
    """Lines about bars whose rows are there; how many are missed."""
    kl, lines, n = {(r["row"], r["text"]): r["kl"]["value"] for r in rows}, [], 0
    for row, text, most, base in BARS:
        if (row, text) in kl and (base is None or (base, text) in kl):
            of = kl[base, text] if base else 1
            good = kl[row, text] <= most * of
            n += not good
            lines.append(f"{row} on {text}: KL {kl[row, text]:.5f}, {kl[row, text] / of:.3f} {f'of {base}' if base else 'nats'}, at most {most}: "
                         f"{'passes' if good else 'MISSED'}")
    return lines, n


def table(doc):
    texts = list(dict.fromkeys(r["text"] for r in doc["rows"]))
    rows = {row: {r["text"]: r for r in doc["rows"] if r["row"] == row} for row in dict.fromkeys(r["row"] for r in doc["rows"])}
    out = [f"| weights | method | activations | MB | {' | '.join(f'KL, {t}' for t in texts)} | same likeliest token, {texts[0]} |",
           "|---|---|---|---:|" + "---:|" * (len(texts) + 1)]
    for row in sorted(rows, key=lambda r: ROWS.index(r) if r in ROWS else len(ROWS)):
        by = rows[row]
        one = next(iter(by.values()))
        top1 = f"{100 * by[texts[0]]['top1']['value']:.1f} %" if texts[0] in by else "-"
        out.append(f"| {one['type']} | {one['method']} | {one['activations']} | {one['bytes'] / 1e6:.1f} | "
                   + " | ".join(weights.loss(by[t]) if t in by else "-" for t in texts) + f" | {top1} |")
    return "\n".join(out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokens", type=int, default=20480, help="that are evaluated of each text, where it has as many")
    p.add_argument("--fit", type=int, default=8192, help="that are calibrated on, of all texts")
    p.add_argument("--texts", default=list(TEXTS), type=lambda s: s.split(","))
    p.add_argument("--save", action="store_true")
    p.add_argument("--table", type=Path)
    p.add_argument("rows", nargs="*")
    o = p.parse_args()
    if o.table:
        return print(table(json.loads(o.table.read_text())))
    path, rows = ROOT / "bench" / "results" / f"quantize-methods-{cpu_slug()}.json", []
    if o.save and path.exists():
        rows = [r for r in json.loads(path.read_text())["rows"] if (r["tokens"], r["fit"], r["calibrated_on"]) == (o.tokens, o.fit, ",".join(o.texts))]
    with tempfile.TemporaryDirectory() as folder:
        for new in measure(o, Path(folder)):
            rows = [r for r in rows if (r["row"], r["text"]) != (new["row"], new["text"])] + [new]
            print(f"{new['row']:18} {new['text']:8} KL {weights.loss(new)}  top-1 {new['top1']['value']:.4f}", flush=True)
            if o.save:
                save("quantize-methods", rows)
    lines, n = missed(rows)
    print("\n".join(lines))
    sys.exit(1 if n else 0)


if __name__ == "__main__":
    main()
