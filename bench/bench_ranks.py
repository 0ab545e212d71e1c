#!/usr/bin/env python3
"""Tokens per second of several processes that share a model, against one of as many threads: servers side by side, which
get the same requests in turn; ratios are medians of the rounds'. Answers are compared: they must be equal. Then what a step's
broadcast and a meeting take (bench_ranks.c). temperature: 1, of which rank 0 draws alone, and 0.

    bench_ranks.py [--model FILE] [--rounds N] [--streams 1,8] [--tokens N]"""

import argparse
import random

from bench_common import *

VARIANTS = {"1 rank, 2 threads": [], "2 ranks, 1 thread": ["--tensor-parallel-size", 2], "2 stages, 1 thread": ["--pipeline-parallel-size", 2]}
BARS = {"ratio": 0.85, "ratio_8b": 0.97, "broadcast_p50_us": 5}


def bodies(streams, n_prompt, tokens, seed, temperature=1):
    r = random.Random(f"{streams} {seed}")
    return [{"prompt": [r.randrange(1000, 30000) for _ in range(n_prompt)], "max_tokens": tokens, "temperature": temperature, "seed": i, "ignore_eos": True,
             "stream": True, "stream_options": {"include_usage": True}} for i in range(streams)]


def rate(server, streams, temperature, o, seed):
    """Tokens per second from the first token of the first stream to the last of the last: of decoding alone."""
    got = run_load(server.port, streams, bodies(streams, o.prompt, o.tokens, seed, temperature))
    if not all(g["ok"] for g in got):
        sys.exit("a request failed")
    first = min(g["start_us"] + g["ttft_us"] for g in got)
    return sum(g["tokens"] - 1 for g in got) / (max(g["start_us"] + g["total_us"] for g in got) - first) * 1e6


def answer(server):
    body = json.dumps({**bodies(1, 24, 24, "answer")[0], "stream": False, "stream_options": None, "logprobs": 2}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v1/completions", body, {"Content-Type": "application/json"})
    c = json.load(urllib.request.urlopen(request))["choices"][0]
    return c["text"], c["logprobs"]


def serve(o):
    servers = {}
    for name, options in VARIANTS.items():
        servers[name] = vramd_server("--max-num-seqs", 8, "--max-model-len", 512, "--kv-cache-tokens", 4096, "--no-prefix-caching", *options,
                                     model=o.model)
    return servers


def measure(o):
    servers, rows = serve(o), []
    try:
        said = [answer(s) for s in servers.values()]
        if any(x != said[0] for x in said):
            sys.exit("the answers differ")
        for streams, temperature in [(s, t) for s in o.streams for t in (1, 0)]:
            runs = {name: [] for name in servers}
            for i in range(o.rounds):
                for name in list(servers) if i % 2 == 0 else list(servers)[::-1]:
                    runs[name].append(rate(servers[name], streams, temperature, o, i))
            base = runs[next(iter(runs))]
            for name, v in runs.items():
                rows.append({"what": "decoding", "streams": streams, "temperature": temperature, "variant": name, "tokens_per_s": round(median(v), 1),
                             "ratio": round(median([a / b for a, b in zip(v, base)]), 3)})
                print(rows[-1], flush=True)
    finally:
        for s in servers.values():
            s.stop()
    return rows


def exchange():
    out = subprocess.run([BUILD / "bench_ranks"], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    for r in rows:
        print(r)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=model_path())
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--streams", type=lambda s: [int(x) for x in s.split(",")], default=[1, 8])
    p.add_argument("--prompt", type=int, default=32)
    p.add_argument("--tokens", type=int, default=48)
    o = p.parse_args()
    rows = exchange() + measure(o)
    of = "" if str(o.model) == str(model_path()) else f"-{Path(o.model).stem}"
    save(f"ranks{of}", rows, bars=BARS, rounds=o.rounds, served_model=Path(o.model).name)


if __name__ == "__main__":
    main()
