#!/usr/bin/env python3
"""Over HTTP against llama.cpp's server: distinct prompts of 128 tokens, 64 tokens out, greedy,
ignore_eos, streamed, at 1, 8, 16 and 32 streams. Both servers run at the same time, the one that
is not measured idle; rounds alternate, and so does who goes first.

llama.cpp's server gets a slot per stream, 512 tokens a slot, as many threads; the better of its
unified and split KV cache and of flash attention on and off is chosen by a trial of both at each
number of streams; its prompt cache (8 GiB by default) is off, which costs it nothing here since
prompts are distinct (memory with it on: see the row "prompt_cache")."""

import argparse
import random

from bench_common import *

PROMPT, OUTPUT = 128, 64
VARIANTS = [["-kvu", "-fa", "on"], ["-kvu", "-fa", "off"], ["-no-kvu", "-fa", "on"], ["-no-kvu", "-fa", "off"]]


def bodies(n, seed):
    r = random.Random(seed)
    return [{"model": "default", "prompt": [r.randrange(1000, 40000) for _ in range(PROMPT)], "max_tokens": OUTPUT,
             "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
            for _ in range(n)]


def measure(server, streams, n, seed, model=None):
    work = bodies(n, seed)
    for b in work:
        if model:
            b["model"] = model
        else:
            del b["model"]
    got = run_load(server.port, streams, work)
    good = [g for g in got if g["ok"] and g["tokens"] == OUTPUT]
    wall = max(g["start_us"] + g["total_us"] for g in got) / 1e6
    gaps = [x / 1e3 for g in good for x in g["gaps_us"]]
    ttft = [g["ttft_us"] / 1e3 for g in good]
    return {
        "tokens_per_s": sum(g["tokens"] for g in good) / wall, "requests": n, "failed": n - len(good),
        "why": sorted({g["why"] or "tokens" for g in got if g not in good}),
        "ttft_ms": median(ttft), "ttft_p95_ms": percentile(ttft, 95),
        "itl_ms": median(gaps), "itl_p99_ms": percentile(gaps, 99),
    }


def best_variant(streams, n):
    """The peer's best flags at this number of streams: one trial each after a warm-up."""
    best = None
    for v in VARIANTS:
        s = peer_server("-np", streams, "-c", streams * 512, "--cache-ram", 0, *v)
        try:
            measure(s, streams, streams, f"warm {streams} {v}")
            rate = measure(s, streams, n, f"trial {streams} {v}")["tokens_per_s"]
        finally:
            s.stop()
        print(f"  llama.cpp {streams} streams {' '.join(v)}: {rate:.0f} tok/s", flush=True)
        if not best or rate > best[0]:
            best = (rate, v)
    return best[1]


def summary(runs):
    out = {k: median([r[k] for r in runs]) for k in
           ("tokens_per_s", "ttft_ms", "ttft_p95_ms", "itl_ms", "itl_p99_ms")}
    return {k: round(v, 2) if v is not None else None for k, v in out.items()} | {
        "requests": sum(r["requests"] for r in runs), "failed": sum(r["failed"] for r in runs),
        "why": sorted({w for r in runs for w in r["why"]}),
        "runs_tokens_per_s": [round(r["tokens_per_s"], 1) for r in runs]}


def one_level(streams, rounds, waves, variant, ours):
    n = max(streams * waves, 4)
    servers = {}
    try:
        if ours:
            servers["vramd"] = vramd_server("--max-num-seqs", 32, "--max-model-len", 512)
        if variant:
            servers["llama.cpp"] = peer_server("-np", streams, "-c", streams * 512, "--cache-ram", 0, *variant)
        runs = {name: [] for name in servers}
        for name, s in servers.items():
            measure(s, streams, streams, f"warm {name}")
        for r in range(rounds):
            for name in sorted(servers, reverse=r % 2 == 0):
                runs[name].append(measure(servers[name], streams, n, f"{streams} {r}"))
                print(f"  {streams} streams, round {r}: {name} {runs[name][-1]['tokens_per_s']:.0f} tok/s", flush=True)
        rows = []
        for name, s in servers.items():
            end = s.memory()
            rows.append({"server": name, "streams": streams, **summary(runs[name]), "ready_s": round(s.ready_s, 3),
                         "memory_ready": s.memory_at_ready, "memory_end": end,
                         "flags": " ".join(variant or []) if name != "vramd" else ""})
        if len(rows) == 2:
            rows.append({"server": "ratio", "streams": streams, "tokens_per_s": round(median(
                [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(runs["vramd"], runs["llama.cpp"])]), 3)})
        return rows
    finally:
        for s in servers.values():
            s.stop()


def prompt_cache_row():
    s = peer_server("-np", 32, "-c", 32 * 512)
    try:
        for i in range(3):
            r = measure(s, 32, 64, f"cache {i}")
        return {"server": "llama.cpp", "streams": 32, "what": "prompt_cache",
                "tokens_per_s": round(r["tokens_per_s"], 2), "failed": r["failed"],
                "memory_ready": s.memory_at_ready, "memory_end": s.memory(), "flags": "all defaults"}
    finally:
        s.stop()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--streams", type=int, nargs="*", default=[1, 8, 16, 32])
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--waves", type=int, default=2, help="requests per stream and round")
    ap.add_argument("--peer-only", action="store_true")
    ap.add_argument("--variant", help="the peer's flags, instead of trying")
    ap.add_argument("--name", default="http")
    a = ap.parse_args()
    peer = peer_bin()
    if not peer:
        print("http: VRAMD_PEER_LLAMA names no llama.cpp build: measuring vramd alone")
    rows = []
    for s in a.streams:
        variant = None
        if peer:
            variant = a.variant.split() if a.variant else best_variant(s, max(s, 4))
        rows += one_level(s, a.rounds, a.waves, variant, not a.peer_only)
    if peer:
        rows.append(prompt_cache_row())
    save(a.name, rows, prompt_tokens=PROMPT, output_tokens=OUTPUT, rounds=a.rounds,
         note="medians over rounds; ratio: median of the rounds' ratios, vramd over llama.cpp")
    for r in rows:
        print({k: r[k] for k in ("server", "streams", "tokens_per_s", "failed", "ttft_ms", "itl_ms", "memory_ready",
                                 "memory_end", "flags") if k in r})


if __name__ == "__main__":
    main()
