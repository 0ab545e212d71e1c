#!/usr/bin/env python3
"""Experts that stay in the model's file: one stream of a random mixture whose file is several times the server's budget. How
near a token's time comes to the longer of its two parts, computing (a server with all experts in memory) and reading (as many
bytes by as many threads, past the page cache, while nothing computes), and what slots hit. Servers and readings are measured in
turn. Needs memory for the whole model, to compare with.

    bench_experts.py [--layers 6] [--times 4] [--tokens 48] [--rounds 3] [--dir /tmp]

The file of 6 layers has 2.1 GB."""

import argparse
import json
import mmap
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench_common import ROOT, median, save, vramd_server

READERS, PIECE = 8, 1 << 20  # EXPERT_READERS of engine/expert_slots.h; pieces with which this disk reads fastest
OPTIONS = ["--backend", "cpu", "--max-model-len", 512, "--max-num-seqs", 4, "--kv-cache-tokens", 2048, "--max-num-batched-tokens", 64, "--no-prefix-caching"]


def read_rate(path, n_bytes):
    """Bytes per second of random pieces, by as many threads as the engine has."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    pieces, r = os.path.getsize(path) // PIECE, random.Random(n_bytes)
    todo = [r.randrange(pieces) * PIECE for _ in range(max(READERS, n_bytes // PIECE))]
    lock = threading.Lock()

    def work():
        buffer = mmap.mmap(-1, PIECE)
        while True:
            with lock:
                if not todo:
                    return
                at = todo.pop()
            os.preadv(fd, [buffer], at)

    n, threads = len(todo), [threading.Thread(target=work) for _ in range(READERS)]
    begin = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    os.close(fd)
    return n * PIECE / (time.monotonic() - begin)


def counts(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as r:
        text = r.read().decode()
    return {k: float(v) for k, v in re.findall(r"^vramd_expert_(\w+)\{[^}]*\} (\S+)$", text, re.M)}


def token_s(server, seed, tokens):
    """Of a stream behind its first token: seconds a token, and what the slots did a token."""
    r = random.Random(seed)
    body = {"prompt": [r.randrange(900) for _ in range(8)], "max_tokens": tokens, "temperature": 1, "seed": seed, "ignore_eos": True, "stream": True,
            "stream_options": {"continuous_usage_stats": True}}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    begin = None
    with urllib.request.urlopen(request, timeout=600) as f:
        for line in f:
            if line.startswith(b"data: {") and not begin:
                begin, was = time.monotonic(), counts(server)
            elif line.startswith(b"data: {"):
                end = time.monotonic()
    now = counts(server)
    return (end - begin) / (tokens - 1), {k: (now[k] - was[k]) / (tokens - 1) for k in now if k.endswith("_total")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--type", default="Q4_K")
    p.add_argument("--times", type=float, default=4, help="size of the file by the budget")
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--dir", default=tempfile.gettempdir(), help="for the model")
    p.add_argument("--model", type=Path, help="a file that make_model.py has made of these layers and type, a vocabulary of 1000")
    p.add_argument("--no-save", action="store_true")
    o = p.parse_args()
    with tempfile.TemporaryDirectory(dir=o.dir) as folder:
        path = o.model or Path(folder) / "a3b.gguf"
        if not o.model:
            subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", "a3b", "--type", o.type, "--layers", str(o.layers),
                            "--vocab", "1000"], check=True)
        size = path.stat().st_size
        budget = int(size / o.times)
        rows = []
        resident = vramd_server(*OPTIONS, model=path)
        slots = vramd_server(*OPTIONS, "--memory", budget, "--expert-memory", "auto", model=path)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{slots.port}/v1/memory") as r:
                held = json.load(r)["ledger_bytes"]
            for i in range(-1, o.rounds):  # the first warms up
                rate = read_rate(path, 1 << 30)
                with_slots, n = token_s(slots, i, o.tokens)
                compute, _ = token_s(resident, i, o.tokens)
                rate = (rate + read_rate(path, 1 << 30)) / 2
                steps = n["hits_total"] + n["misses_total"]
                read = n["read_bytes_total"] / rate
                row = {"round": i, "token_ms": with_slots * 1e3, "compute_ms": compute * 1e3, "read_ms": read * 1e3,
                       "of_the_longer": max(compute, read) / with_slots, "of_the_sum": with_slots / (compute + read),
                       "hits": n["hits_total"] / steps, "mb_per_token": n["read_bytes_total"] / 1e6,
                       "stalled_ms": n["stall_seconds_total"] * 1e3, "disk_mb_per_s": rate / 1e6}
                print({k: round(v, 3) for k, v in row.items()}, flush=True)
                if i >= 0:
                    rows.append(row)
            have = counts(slots)
        finally:
            resident.stop()
            slots.stop()
    share = median([r["of_the_longer"] for r in rows])
    print(f"{share:.1%} of the longer of reading and computing; {have['slots']:.0f} slots, {held} of {budget} bytes, file {size}")
    if not o.no_save:
        save("experts", [{k: round(v, 3) for k, v in r.items()} for r in rows], model_file=f"a3b, {o.layers} layers, {o.type}", file_bytes=size,
             budget_bytes=budget, held_bytes=held, slots=have["slots"], tokens=o.tokens, bar=0.85,
             note="random weights in the shape of Qwen3 30B A3B's layers, whose routes favour no expert much; of_the_longer: the longer of "
                  "compute_ms and read_ms by token_ms")
    sys.exit(share < 0.85)


if __name__ == "__main__":
    main()
