#!/usr/bin/env python3
"""Decoding of a mixture of experts: random weights in the shape of Qwen3 30B A3B's layers (128 experts, 8 used), by batch.
Three bars: one row decodes at 85% of what reading its bytes takes; a batch reads each chosen expert once a step; routing
takes 3% of a layer. Bytes are those of the weights that a step reads, experts by what their routers chose, and of the KV
cache; the read rate is what all threads get by plain reading of the same weights, the median of passes between the repetitions. Ends with 1
where a bar is missed. Writes 0.5 GB a layer into --dir, and deletes it."""

import argparse

from bench_common import *

BARS = {"of_read_rate": 0.85, "expert_reads": 2.0, "route_share": 0.03}


def measure(path, batches, tokens, reps):
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", path, "--threads", str(THREADS), "--ops", "1", "--prefill", "",
                        "--depths", "", "--batches", ",".join(map(str, batches)), "--tokens", str(tokens), "--reps", str(reps),
                        "--json", f.name], check=True)
        return json.load(f)["rows"]


def missed(rows):
    """Less than two readings are one: what an expert's weights take beyond that is arithmetic."""
    one = [r for r in rows if r["batch"] == 1]
    out = [f"batch 1: {r['of_read_rate']:.0%} of the read rate" for r in one if r["of_read_rate"] < BARS["of_read_rate"]]
    for r in rows:
        if r["batch"] > 1 and r["expert_reads"] >= BARS["expert_reads"]:
            out.append(f"batch {r['batch']}: the experts take as long as reading them {r['expert_reads']:.2f} times")
        if r["route_share"] > BARS["route_share"]:
            out.append(f"batch {r['batch']}: routing takes {r['route_share']:.1%} of a layer")
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--layers", type=int, default=6)
    ap.add_argument("--type", default="Q4_K")  # Q4_0's random codes have a mean, so that all rows choose alike
    ap.add_argument("--batches", default="1,8,32")
    ap.add_argument("--tokens", type=int, default=32)
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="for the model")
    ap.add_argument("--no-save", action="store_true")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(dir=a.dir) as folder:
        path = Path(folder) / "a3b.gguf"
        subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", "a3b", "--type", a.type, "--layers",
                        str(a.layers), "--vocab", "32000"], check=True)
        rows = measure(path, [int(b) for b in a.batches.split(",")], a.tokens, a.reps)
    if not a.no_save:
        save("moe", rows, model_file=f"a3b, {a.layers} layers, {a.type}", layers=a.layers, type=a.type, bars=BARS,
             note="random weights in the shape of Qwen3 30B A3B's layers; step_mb: weights and KV cache that a step reads; "
                  "expert_reads: time of the experts' matrices by that of reading them once")
    wrong = missed(rows)
    for text in wrong:
        print("missed:", text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
