#!/usr/bin/env python3
"""What an objective for the time between two tokens does: 32 streams of 128 prompt and 64 output tokens, each followed by
the next at once, so that prompts arrive all the time. Servers side by side, the same requests in turn: without an objective
(max_num_batched_tokens 512 and 128), and with one (itl_slo_ms). Ratios are medians of the rounds'. Also how well the
daemon's model of step times predicts: vramd_step_cost_error_ratio, whose predictions are made before each step.

    bench_slo.py [--rounds N] [--requests N] [--slo MS]     default objective: 1.5 of the median time without one"""

import argparse
import random
import urllib.request

from bench_common import *
from bench_techniques import body, measure

STREAMS, N_PROMPT, N_OUTPUT = 32, 128, 64
OPTIONS = ["--max-num-seqs", STREAMS, "--max-model-len", 512, "--kv-cache-tokens", STREAMS * 256, "--no-prefix-caching"]


def load(n):
    # with logprobs each token is an event: without them a part of a character is not, and its gap would be two steps
    return (lambda r: [{**body(r, N_PROMPT, N_OUTPUT, i), "logprobs": 0} for i in range(n)], STREAMS)


def cost_error(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    (line,) = [x for x in text.splitlines() if x.startswith("vramd_step_cost_error_ratio")]
    return float(line.split()[-1])


def row(name, options, server, runs, base):
    itl = [x for r in runs for x in r["itl_ms"]]
    ttft = [x for r in runs for x in r["ttft_ms"]]
    return {"variant": name, "options": " ".join(map(str, options)),
            "output_tokens_per_s": round(median([r["output_tokens_per_s"] for r in runs]), 1),
            "ratio": round(median([r["output_tokens_per_s"] / b["output_tokens_per_s"] for r, b in zip(runs, base)]), 3),
            **{f"itl_ms_p{p}": round(percentile(itl, p), 1) for p in (50, 90, 99)},
            **{f"ttft_ms_p{p}": round(percentile(ttft, p), 1) for p in (50, 99)},
            "step_cost_error": round(cost_error(server), 4), "failed": sum(r["failed"] for r in runs)}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--requests", type=int, default=96)
    a.add_argument("--slo", type=int)
    a = a.parse_args()
    t, servers = {"load": load(a.requests)}, {}
    variants = {"none, 512 rows": ["--max-num-batched-tokens", 512], "none, 128 rows": ["--max-num-batched-tokens", 128]}
    try:
        for name, more in variants.items():
            servers[name] = vramd_server(*OPTIONS, *more)
        base = "none, 512 rows"
        warm = measure(servers[base], {"load": load(STREAMS * 2)}, "warm")
        slo = a.slo or round(1.5 * percentile(warm["itl_ms"], 50))
        name = f"itl_slo_ms = {slo}"
        variants[name] = ["--max-num-batched-tokens", 512, "--itl-slo-ms", slo]
        servers[name] = vramd_server(*OPTIONS, *variants[name])
        for v in list(variants)[1:]:
            measure(servers[v], {"load": load(STREAMS * 2)}, "warm")
        runs = {v: [] for v in variants}
        for i in range(a.rounds):
            for v in list(variants) if i % 2 == 0 else reversed(list(variants)):
                runs[v].append(measure(servers[v], t, f"slo {i}"))
                print(f"round {i}: {v}: {runs[v][-1]['output_tokens_per_s']:.1f} tokens/s, ITL p99 "
                      f"{percentile(runs[v][-1]['itl_ms'], 99):.0f} ms", flush=True)
        rows = [row(v, variants[v], servers[v], runs[v], runs[base]) for v in variants]
    finally:
        for s in servers.values():
            s.stop()
    for r in rows:
        print(r)
    print(save("slo", rows, streams=STREAMS, prompt_tokens=N_PROMPT, output_tokens=N_OUTPUT, requests=a.requests, rounds=a.rounds))


if __name__ == "__main__":
    main()
