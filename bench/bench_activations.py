#!/usr/bin/env python3
"""What activation_dtype = auto chooses between: int8 and bf16, each by the best instruction set of this CPU, on the real model. The
families take turns; the figures are medians of the rounds, ratios those of the rounds' ratios.

    bench_activations.py [--rounds N]     make bench B=activations"""

import argparse

from bench_common import *

FAMILIES = ("int8", "bf16")


def run(family):
    """{(case, rows): tokens/s}"""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", model_path(), "--threads", str(THREADS), "--family", family, "--prefill", "512",
                        "--depths", "0", "--batches", "8,32", "--json", f.name], check=True, stdout=subprocess.DEVNULL)
        return {(r["case"], 512 if r["case"] == "prefill" else r["batch"]): r["tokens_per_s"] for r in json.load(f)["rows"]}


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--rounds", type=int, default=3)
    a = a.parse_args()
    rounds = [{family: run(family) for family in FAMILIES} for _ in range(a.rounds)]
    rows = []
    for case, n in rounds[0]["int8"]:
        of = lambda family: [r[family][case, n] for r in rounds]
        rows.append({"case": case, "rows": n, **{f"{f}_tokens_per_s": round(median(of(f)), 1) for f in FAMILIES},
                     "ratio": round(median([y / x for x, y in zip(of("int8"), of("bf16"))]), 3)})
        print(rows[-1], flush=True)
    save("activations", rows, rounds=a.rounds)


if __name__ == "__main__":
    main()
