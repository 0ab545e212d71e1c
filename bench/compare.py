#!/usr/bin/env python3
"""Two builds of vramd on the same machine, alternating: before and after a change.

  bench/compare.py BEFORE AFTER [--bench engine scheduler] [--rounds 3] [--store]

BEFORE and AFTER are build folders: with bench_engine for "engine", bench_scheduler for "scheduler", vramd for "http"
(the requests of bench_http.py; both daemons run at the same time, the one that is not measured idle).
Prints the median of each case and the median of the rounds' ratios, after to before: tokens/s (more is faster) for the
engine and HTTP, milliseconds between tokens for HTTP and microseconds of a step for the scheduler (less is faster).
"""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench_common import model_path, save, vramd_server
from bench_http import measure

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


class Http:
    """A daemon of each build, warmed up."""
    STREAMS = (1, 8, 32)

    def __init__(self, builds):
        self.servers = {}
        try:
            for build in builds:
                self.servers[build] = vramd_server("--max-num-seqs", 32, "--max-model-len", 512, build=build)
                measure(self.servers[build], 8, 8, f"warm {build}")
        except BaseException:
            self.stop()
            raise
        self.round = 0

    def __call__(self, build):
        self.round += 1
        out = {}
        for streams in self.STREAMS:
            # Other prompts each time: what a daemon has in its prefix cache is not computed again.
            m = measure(self.servers[build], streams, max(2 * streams, 4), f"{streams} {self.round}")
            if m["failed"]:
                raise RuntimeError(f"{build}: {m['failed']} of {m['requests']} requests failed: {m['why']}")
            out[f"http {streams} streams tokens/s"] = m["tokens_per_s"]
            out[f"http {streams} streams itl_ms"] = m["itl_ms"]
        return out

    def stop(self):
        for s in self.servers.values():
            s.stop()


def rounds_of(n, builds, benches):
    """{case: {build: [values]}}. Who goes first alternates, too."""
    seen = {}
    for i in range(n):
        for side, build in builds.items() if i % 2 == 0 else reversed(builds.items()):
            for bench in benches:
                for case, value in bench(build).items():
                    seen.setdefault(case, {}).setdefault(side, []).append(value)
    return seen


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("before", type=Path)
    p.add_argument("after", type=Path)
    p.add_argument("--bench", nargs="+", choices=["engine", "scheduler", "http"], default=["engine", "scheduler"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--store", action="store_true", help="into bench/results/")
    o = p.parse_args()
    builds = {"before": o.before, "after": o.after}
    http = Http(builds.values()) if "http" in o.bench else None
    try:
        known = {"engine": engine, "scheduler": scheduler, "http": http}
        seen = rounds_of(o.rounds, builds, [known[b] for b in o.bench])
    finally:
        if http:
            http.stop()
    rows = [{"case": case, "before": statistics.median(v["before"]), "after": statistics.median(v["after"]),
             "ratio": round(statistics.median(a / b for a, b in zip(v["after"], v["before"])), 3)} for case, v in seen.items()]
    for r in rows:
        print(f"{r['case']:<40} {r['before']:10.3f} {r['after']:10.3f}  {r['ratio']:.3f}")
    if o.store:
        save("compare", rows, rounds=o.rounds)


if __name__ == "__main__":
    main()
