#!/usr/bin/env python3
"""vramd quantize --fit against every uniform type that fits, by KL divergence from float32 weights.

    bench/run.sh fit [--method imatrix] [--tokens 2048] [--fit-tokens 4096] [--budgets 6] [--model FILE] [--types T,T] [--save]

The model is the test model with its channels rescaled in pairs (bench/quant_source.py), or --model in float32. Each uniform type is made and measured once. The
budgets lie between the smallest and the largest of these files, evenly in log bytes; a chosen mixture passes where its KL is not
above that of the best uniform type of no more bytes. Evaluated on Hamlet, calibrated on other plays (tools/get-text.sh). Ends with 1 where a
budget fails. About one minute a file on two idle cores; with --save: bench/results/fit-CPU.json."""

import argparse
import math
import sys

import weights
from bench_common import *

TYPES = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_0", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--method", default="imatrix", help="of the codes, for uniform and chosen types alike; rtn: no text")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--fit-tokens", type=int, default=4096)
    p.add_argument("--budgets", type=int, default=6)
    p.add_argument("--activations", default="f32")
    p.add_argument("--types", default=TYPES, type=lambda s: s.split(","))
    p.add_argument("--model", type=Path)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--save", action="store_true")
    o = p.parse_args()
    rows, python = [], subprocess.check_output([ROOT / "tools" / "venv.sh"], text=True).strip()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, out, reference = o.model or folder / "source.gguf", folder / "out.gguf", folder / "f32.ref"
        if not o.model:
            subprocess.run([python, ROOT / "bench" / "quant_source.py", model_path(), source], check=True)
        evaluate = ["--file", text_of("hamlet"), "--context", o.context, "--tokens", o.tokens, "--json"]
        vramd("eval", source, *evaluate, "--activation-dtype", "f32", "--write-reference", reference)
        how = []
        if o.method == "imatrix":  # the text runs once for all files
            vramd("quantize", source, out, "--type", "Q8_0", "--method", "imatrix", "--calibrate", text_of("plays"), "--calibrate-tokens",
                  o.fit_tokens, "--no-check", "--write-imatrix", folder / "imatrix.gguf")
            how = ["--method", "imatrix", "--imatrix", folder / "imatrix.gguf"]
        elif o.method != "rtn":
            how = ["--method", o.method, "--calibrate", text_of("plays"), "--calibrate-tokens", o.fit_tokens, "--no-check"]

        def measure(kind, *words):
            vramd("quantize", source, out, "--force", *words, *how)
            j = json.loads(vramd("eval", out, *evaluate, "--activation-dtype", o.activations, "--other-weights", "--reference", reference))
            rows.append({"kind": kind, "method": o.method, "bytes": out.stat().st_size, "kl": j["kl"], "perplexity": j["perplexity"]})
            print(f"{kind:14} {out.stat().st_size:12,} bytes  KL {weights.loss(rows[-1])}", flush=True)
            return rows[-1]

        def store():
            if o.save:
                save("fit", rows, tokens=o.tokens, calibrated_on=o.fit_tokens)

        uniform = [measure(t, "--type", t) for t in o.types]
        store()
        low, high = (math.log(f(u["bytes"] for u in uniform)) for f in (min, max))
        failed = 0
        for i in range(o.budgets):
            budget = math.ceil(math.exp(low + (high - low) * (i + 0.5) / o.budgets))
            best = min((u for u in uniform if u["bytes"] <= budget), key=lambda u: u["kl"]["value"])
            got = measure("--fit", "--fit", budget)
            good = got["kl"]["value"] <= best["kl"]["value"]
            got |= {"budget": budget, "best_uniform": best["kind"], "best_uniform_kl": best["kl"]["value"], "passes": good}
            failed += not good
            store()
            print(f"  budget {budget:,}: best uniform {best['kind']}, KL {best['kl']['value']:.5f}: {'passes' if good else 'FAILS'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
