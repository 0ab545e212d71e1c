#!/usr/bin/env python3
"""Tokens per second with and without a JSON schema: 32 streams at temperature 1, distinct prompts of 32 tokens, 64
tokens out at most. Both kinds go to one server in turn; the ratio is the median of the rounds'. The schema is one
whose shortest answer is longer than 64 tokens, so that both kinds generate as many; each constrained answer is a
prefix of what the schema allows (tests/e2e/test_structured.py validates whole ones)."""

import argparse
import random

from bench_common import *

PROMPT, OUTPUT, STREAMS = 32, 64, 32
WORDS = {"type": "array", "minItems": 20, "maxItems": 30, "items": {"type": "string", "minLength": 12, "maxLength": 40}}
SCHEMA = {"type": "object", "required": ["title", "parts"], "additionalProperties": False,
          "properties": {"title": {"type": "string", "minLength": 20, "maxLength": 60}, "parts": WORDS}}


def bodies(n, seed, constrained):
    r = random.Random(seed)
    more = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}} if constrained else {}
    return [{"prompt": [r.randrange(1000, 40000) for _ in range(PROMPT)], "max_tokens": OUTPUT, "temperature": 1, "seed": i,
             "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}, **more} for i in range(n)]


def measure(server, n, seed, constrained):
    got = run_load(server.port, STREAMS, bodies(n, seed, constrained))
    good = [g for g in got if g["ok"] and g["tokens"] == OUTPUT]
    wall = max(g["start_us"] + g["total_us"] for g in got) / 1e6
    return {"tokens_per_s": sum(g["tokens"] for g in good) / wall, "failed": n - len(good),
            "why": sorted({g["why"] or f"{g['tokens']} tokens" for g in got if g not in good})}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    o = p.parse_args()
    s = vramd_server("--max-num-seqs", STREAMS, "--max-model-len", 256)
    runs = {False: [], True: []}
    try:
        for kind in runs:
            measure(s, STREAMS, f"warm {kind}", kind)
        for i in range(o.rounds):
            for kind in sorted(runs, reverse=i % 2 == 0):
                runs[kind].append(measure(s, 2 * STREAMS, f"{i} {kind}", kind))
    finally:
        s.stop()
    rows = [{"case": "json_schema" if kind else "free", "streams": STREAMS,
             "tokens_per_s": round(median([r["tokens_per_s"] for r in v]), 1), "failed": sum(r["failed"] for r in v),
             "why": sorted({w for r in v for w in r["why"]})} for kind, v in runs.items()]
    rows.append({"case": "ratio", "streams": STREAMS, "tokens_per_s": round(median(
        [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(runs[True], runs[False])]), 3)})
    for r in rows:
        print(r)
    save("structured", rows, rounds=o.rounds)


if __name__ == "__main__":
    main()
