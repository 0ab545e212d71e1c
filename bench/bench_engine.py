#!/usr/bin/env python3
"""The engine against llama.cpp's, same file, same threads: decoding at depths 0, 1,024 and 4,096,
and a prefill of 512. Rounds alternate; a round runs llama-bench with flash attention off and on,
and its better setting counts. Printed and stored: medians, and the median of the rounds' ratios."""

import argparse

from bench_common import *

DEPTHS = [0, 1024, 4096]


def ours():
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", model_path(), "--threads", str(THREADS), "--depths",
                        ",".join(map(str, DEPTHS)), "--batches", "", "--reps", "1", "--json", f.name],
                       check=True, stdout=subprocess.DEVNULL)
        rows = json.load(f)["rows"]
    return {(r["case"], r["depth"]): r["tokens_per_s"] for r in rows}


def peer(fa):
    out = subprocess.run([peer_bin() / "llama-bench", "-m", model_path(), "-t", str(THREADS), "-p", "512", "-n", "64",
                          "-d", ",".join(map(str, DEPTHS)), "-fa", str(fa), "-r", "1", "-o", "json"],
                         check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    got = {}
    for r in json.loads(out):
        case = "prefill" if r["n_prompt"] else "decode"
        if case == "decode" or r["n_depth"] == 0:
            got[case, r["n_depth"]] = r["avg_ts"]
    return got


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    if not peer_bin():
        print("engine: VRAMD_PEER_LLAMA names no llama.cpp build: measuring vramd alone")
    mine, theirs = [], []
    for r in range(a.rounds):
        mine.append(ours())
        if peer_bin():
            off, on = peer(0), peer(1)
            theirs.append({k: max(off[k], on[k]) for k in off})
        print(f"round {r}: {mine[-1]}" + (f" llama.cpp {theirs[-1]}" if theirs else ""), flush=True)
    rows = []
    for case in sorted(mine[0]):
        row = {"case": case[0], "depth": case[1], "vramd_tokens_per_s": round(median([m[case] for m in mine]), 1)}
        if theirs:
            row["llama_cpp_tokens_per_s"] = round(median([t[case] for t in theirs]), 1)
            row["ratio"] = round(median([m[case] / t[case] for m, t in zip(mine, theirs)]), 3)
        rows.append(row)
        print(row)
    save("engine", rows, rounds=a.rounds, note="llama.cpp: the better of -fa 0 and -fa 1 in each round; ratio: "
         "median of the rounds' ratios, vramd over llama.cpp")


if __name__ == "__main__":
    main()
