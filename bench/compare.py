#!/usr/bin/env python3
"""Two builds of vramd on the same machine, alternating: the CPU engine and the scheduler before and after a change.

  bench/compare.py BEFORE AFTER [--rounds 3] [--store]    build folders with bench_engine and bench_scheduler

Prints the median of each case and the median of the rounds' ratios, after to before: tokens/s for the engine (more is
faster), microseconds of a step for the scheduler (less is faster).
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench_common import model_path, save

ENGINE = "--threads 2 --batches 8,32 --depths 0,1024,4096 --prefill 512 --tokens 32 --reps 1".split()


def engine(build):
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        subprocess.run([build / "bench_engine", "--model", model_path(), *ENGINE, "--json", f.name], check=True, capture_output=True)
        rows = json.load(open(f.name))["rows"]
    return {f"engine {r['case']} depth {r['depth']} batch {r['batch']}": r["tokens_per_s"] for r in rows}


def scheduler(build):
    out = json.loads(subprocess.run([build / "bench_scheduler", "300"], check=True, capture_output=True, text=True).stdout)
    rows = out if isinstance(out, list) else out["rows"]
    return {f"scheduler {r['case']} {r['running']}": r["p50_us"] for r in rows if r["running"] in (32, 256)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("before", type=Path)
    p.add_argument("after", type=Path)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--store", action="store_true", help="into bench/results/")
    o = p.parse_args()
    seen = {}
    for _ in range(o.rounds):
        for side, build in (("before", o.before), ("after", o.after)):
            for case, value in {**engine(build), **scheduler(build)}.items():
                seen.setdefault(case, {}).setdefault(side, []).append(value)
    rows = [{"case": case, "before": statistics.median(v["before"]), "after": statistics.median(v["after"]),
             "ratio": round(statistics.median(a / b for a, b in zip(v["after"], v["before"])), 3)} for case, v in seen.items()]
    for r in rows:
        print(f"{r['case']:<40} {r['before']:10.3f} {r['after']:10.3f}  {r['ratio']:.3f}")
    if o.store:
        save("compare", rows, rounds=o.rounds)


if __name__ == "__main__":
    main()
