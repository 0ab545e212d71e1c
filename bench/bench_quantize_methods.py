#!/usr/bin/env python3
"""What each method of `vramd quantize` loses at equal bits, by KL divergence from float32 weights.

    bench/run.sh quantize_methods [--tokens 3584] [--fit 8192] [--save] PROSE CODE [METHOD:TYPE ...]

The model is the test model (tools/get-model.sh) with its channels rescaled in pairs, so that its weights lie on no grid
(bench/quant_source.py). PROSE and CODE are two texts of at least 200 KB: the first four fifths of each are calibrated on, in equal
parts, and `vramd eval` measures on the last fifth. With --save: bench/results/quantize-methods-CPU.json. One row takes about a minute a
core on SmolLM2-135M; nothing else should run.
"""
import argparse
import sys

from bench_common import *

ROWS = ("rtn:Q4_1 imatrix:Q4_1 awq:Q4_1 gptq:Q4_1 awq+gptq:Q4_1 rtn:Q4_0 imatrix:Q4_0 gptq:Q4_0 rtn:Q4_K imatrix:Q4_K gptq:Q4_K "
        "rtn:Q8_0:int8 smooth:Q8_0:int8").split()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokens", type=int, default=3584)
    p.add_argument("--fit", type=int, default=8192)
    p.add_argument("--save", action="store_true")
    p.add_argument("prose")
    p.add_argument("code")
    p.add_argument("rows", nargs="*", default=ROWS)
    a = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = folder / "source.gguf"
        subprocess.run([sys.executable, ROOT / "bench" / "quant_source.py", model_path(), source], check=True)
        texts = {}
        for name, path in (("prose", a.prose), ("code", a.code)):
            text = Path(path).read_text(errors="replace")
            cut = text.index("\n", len(text) // 5 * 4) + 1
            (folder / f"{name}.fit").write_text(text[:cut])
            (folder / f"{name}.held").write_text(text[cut:])
            texts[name] = folder / f"{name}.held"
            vramd("eval", source, "--file", texts[name], "--context", 512, "--tokens", a.tokens, "--activation-dtype", "f32",
                  "--write-reference", folder / f"{name}.ref")
        for row in a.rows or ROWS:
            method, kind, activations = (row.split(":") + ["f32"])[:3]
            out = folder / "out.gguf"
            words = () if method == "rtn" else ("--method", method, "--calibrate", folder / "prose.fit", "--calibrate", folder / "code.fit",
                                                "--calibrate-tokens", a.fit, "--no-check")
            vramd("quantize", source, out, "--type", kind, "--force", *words)
            for name, text in texts.items():
                j = json.loads(vramd("eval", out, "--file", text, "--other-weights", "--reference", folder / f"{name}.ref",
                                     "--activation-dtype", activations, "--json"))
                rows.append({"method": method, "type": kind, "activations": activations, "text": name, "tokens": a.tokens, "fit": a.fit,
                             "bytes": out.stat().st_size, "kl": j["kl"], "top1": j["top1"], "perplexity_ratio": j["perplexity_ratio"]})
                print(f"{method:10} {kind:6} {activations:5} {name:6} KL {j['kl']['value']:.5f} +- {j['kl']['se']:.5f}  top-1 {j['top1']['value']:.4f}",
                      flush=True)
    if a.save:
        save("quantize-methods", rows)


if __name__ == "__main__":
    main()
