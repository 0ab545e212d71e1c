#!/usr/bin/env python3
"""Types of the KV cache against f16 on the engine alone: decoding of one sequence at depth 4,096, and of 32 sequences
with a short context. Each round runs all types of a case one after the other, since the machine may drift; printed and
stored: medians, and the median of the rounds' ratios to f16."""

import argparse

from bench_common import *

TYPES = [("f16", "f16"), ("int8", "int8"), ("q8_0", "q8_0"), ("fp8", "fp8"), ("int8", "int4"), ("int4", "int4")]
CASES = [("decode", 1, 4096), ("decode", 32, 160)]
TOKENS = 32


def rate(k, v, batch, depth):
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        alone = batch == 1
        subprocess.run([BUILD / "bench_engine", "--model", model_path(), "--threads", str(THREADS), "--kv", k, "--kv-v", v,
                        "--batches", "" if alone else str(batch), "--depths", str(depth) if alone else "",
                        "--context", str(depth), "--prefill", "", "--tokens", str(TOKENS), "--reps", "1", "--json", f.name],
                       check=True, stdout=subprocess.DEVNULL)
        (row,) = json.load(f)["rows"]
    return row["tokens_per_s"]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--types", default="", help="only these of K, besides f16: int8,q8_0")
    a = ap.parse_args()
    types = [t for t in TYPES if not a.types or t[0] == "f16" or (t[0] == t[1] and t[0] in a.types.split(","))]
    rows = []
    for case, batch, depth in CASES:
        runs = [[rate(k, v, batch, depth) for k, v in types] for _ in range(a.rounds)]
        for i, (k, v) in enumerate(types):
            rows.append({"case": case, "batch": batch, "depth": depth, "type_k": k, "type_v": v,
                         "tokens_per_s": round(median([r[i] for r in runs]), 1),
                         "ratio": round(median([r[i] / r[0] for r in runs]), 3), "runs": [round(r[i], 1) for r in runs]})
            print(rows[-1], flush=True)
    save("kv", rows, rounds=a.rounds, decode_tokens=TOKENS, note="ratio: median of the rounds' ratios to f16")


if __name__ == "__main__":
    main()
