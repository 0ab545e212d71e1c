#!/usr/bin/env python3
"""A budget that moves under load: 32 streams, from 1.5x to 1x of the smallest comfortable budget (one that holds what these
streams need) and back. Per round: time from PUT /v1/memory until the kernel has the pages, time until the budget is in force,
and the time between tokens (p50, p99) in the second before and the second after, over all streams."""

import argparse
import http.client
import threading

from bench_common import *

STREAMS, PROMPT, OUTPUT = 32, 32, 160
OPTIONS = ["--max-num-seqs", STREAMS, "--max-model-len", 512, "--max-num-batched-tokens", 128]


def account(port):
    return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/memory").read())


def rss_anon(pid):
    return next(int(x.split()[1]) * 1024 for x in open(f"/proc/{pid}/status") if x.startswith("RssAnon:"))


def stream(port, i, times, failed):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    c.request("POST", "/v1/completions", json.dumps({
        "prompt": [1000 + (i * 977 + k * 31) % 40000 for k in range(PROMPT)], "max_tokens": OUTPUT, "ignore_eos": True,
        "stream": True, "temperature": 1, "seed": i}), {"Content-Type": "application/json"})
    r, last, n = c.getresponse(), None, 0
    for line in r:
        if not line.startswith(b"data: {"):
            continue
        now = time.monotonic()
        if last is not None:
            times.append((now, now - last))
        last, n = now, n + 1
    if r.status != 200 or n < OUTPUT:
        failed.append(i)


def put(port, budget):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("PUT", "/v1/memory", json.dumps({"budget_bytes": budget}), {"Content-Type": "application/json"})
    r = c.getresponse()
    return r.status, json.loads(r.read())


def ms_at(values, p):
    v = sorted(values)
    return round(v[min(len(v) - 1, int(len(v) * p))] * 1e3, 1) if v else None


def change(server, times, budget, expect):
    """PUT in a thread; how long until RssAnon has moved by 95% of what is expected, and until the answer."""
    before, began, answer = rss_anon(server.pid), time.monotonic(), []
    t = threading.Thread(target=lambda: answer.append((*put(server.port, budget), time.monotonic())))
    t.start()
    moved = None
    while moved is None and time.monotonic() < began + 20:
        if (rss_anon(server.pid) - before) / expect >= 0.95:
            moved = time.monotonic() - began
        time.sleep(0.002)
    t.join()
    time.sleep(max(0, began + 1 - time.monotonic()))
    itl = [[d for at, d in list(times) if a <= at < b] for a, b in ((began - 1, began), (began, began + 1))]
    return {"status": answer[0][0], "pages_s": moved and round(moved, 3), "in_force_s": round(answer[0][2] - began, 3),
            "moved_bytes": abs(expect), "itl_p50_before_ms": ms_at(itl[0], .5), "itl_p50_ms": ms_at(itl[1], .5),
            "itl_p99_before_ms": ms_at(itl[0], .99), "itl_p99_ms": ms_at(itl[1], .99)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    o = p.parse_args()
    s = vramd_server(*OPTIONS)
    m = account(s.port)
    s.stop()
    spare = m["kv"]["blocks"] * 16 - STREAMS * (PROMPT + OUTPUT)
    comfortable = m["budget_bytes"] - m["kv"]["bytes_per_token"] * spare
    large = comfortable * 3 // 2
    s = vramd_server(*OPTIONS, "--memory", large)
    s.pid = s.process.pid
    rows = []
    try:
        for i in range(o.rounds):
            times, failed = [], []
            threads = [threading.Thread(target=stream, args=(s.port, k, times, failed)) for k in range(STREAMS)]
            for t in threads:
                t.start()
            while len(times) < STREAMS * 40:
                time.sleep(0.02)
            big = account(s.port)["plan_bytes"]
            expect = comfortable - big
            shrink = change(s, times, comfortable, expect)
            time.sleep(0.5)
            grow = change(s, times, large, -expect)
            for t in threads:
                t.join()
            for name, row in (("shrink", shrink), ("grow", grow)):
                rows.append({"case": name, "round": i, "streams": STREAMS, "budget_bytes": large if name == "grow" else comfortable,
                             **row, "failed": len(failed)})
                print(rows[-1], flush=True)
    finally:
        s.stop()
    save("memory-resize", rows, rounds=o.rounds)


if __name__ == "__main__":
    main()
