#!/usr/bin/env python3
"""The engine against llama.cpp's, same file, same threads: decoding at depths 0, 1,024 and 4,096,
and a prefill of 512. Each case alternates on its own, seconds apart, since the machine may drift:
a round runs vramd, then llama-bench with flash attention off and on, and its better setting
counts (from the second round on only the one that was better by far, if one was). Printed and
stored: medians, and the median of the rounds' ratios."""

import argparse

from bench_common import *

CASES = [("decode", 0), ("decode", 1024), ("decode", 4096), ("prefill", 0)]
PREFILL, TOKENS = 512, 64
CLEAR = 1.25  # a setting of -fa this much better in the first round is not tried again


def ours(case, depth):
    decode = case == "decode"
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", model_path(), "--threads", str(THREADS), "--batches", "",
                        "--depths", str(depth) if decode else "", "--prefill", "" if decode else str(PREFILL),
                        "--tokens", str(TOKENS), "--reps", "1", "--json", f.name],
                       check=True, stdout=subprocess.DEVNULL)
        (row,) = json.load(f)["rows"]
    return row["tokens_per_s"]


def peer(case, depth, fa):
    decode = case == "decode"
    out = subprocess.run([peer_bin() / "llama-bench", "-m", model_path(), "-t", str(THREADS),
                          "-p", "0" if decode else str(PREFILL), "-n", str(TOKENS) if decode else "0",
                          "-d", str(depth), "-fa", str(fa), "-r", "1", "-o", "json"],
                         check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    (row,) = json.loads(out)
    return row["avg_ts"]


def compare(case, depth, rounds):
    mine, theirs, settings = [], [], [0, 1]
    for r in range(rounds):
        mine.append(ours(case, depth))
        if not peer_bin():
            continue
        got = {fa: peer(case, depth, fa) for fa in settings}
        theirs.append(max(got.values()))
        best = max(got, key=got.get)
        if r == 0 and got[best] > CLEAR * min(got.values()):
            settings = [best]
    row = {"case": case, "depth": depth, "vramd_tokens_per_s": round(median(mine), 1)}
    if theirs:
        row |= {"llama_cpp_tokens_per_s": round(median(theirs), 1),
                "ratio": round(median([m / t for m, t in zip(mine, theirs)]), 3),
                "fa": settings if len(settings) == 1 else "both",
                "llama_cpp_runs": [round(t, 1) for t in theirs]}
    return row | {"vramd_runs": [round(m, 1) for m in mine]}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    if not peer_bin():
        print("engine: VRAMD_PEER_LLAMA names no llama.cpp build: measuring vramd alone")
    rows = []
    for case, depth in CASES:
        rows.append(compare(case, depth, a.rounds))
        print(rows[-1], flush=True)
    save("engine", rows, rounds=a.rounds, prefill_tokens=PREFILL, decode_tokens=TOKENS,
         note="llama.cpp: the better of -fa 0 and 1 in each round; ratio: median of the rounds' ratios")


if __name__ == "__main__":
    main()
