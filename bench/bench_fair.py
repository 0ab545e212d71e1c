#!/usr/bin/env python3
"""What a flood of one client costs another one: 1,000 requests of one tenant at once, and one of another tenant now and then.
Two servers in turn, scheduler_policy = fair and fcfs; the tenants are named by a gateway's header (trusted_proxies). Of the
other tenant's requests: the time to the first token over its own time of service alone; of all: tokens per second while the flood lasts.

    bench_fair.py [--flood N] [--others N] [--rounds N]     the bar: at most 2 of its own times, 0.99 of the throughput"""

import argparse
import random
import threading

from bench_common import *

SEQS, N_PROMPT, N_OUTPUT = 8, 32, 16
OPTIONS = ["--max-num-seqs", SEQS, "--max-model-len", 256, "--no-prefix-caching", "--trusted-proxies", "127.0.0.1", "--max-connections", 2048]
HEADER = "x-gateway-inference-fairness-id"


def send(port, who, seed):
    """Seconds to the first event, the times of the request and of the last event, and the tokens."""
    r = random.Random(seed)
    body = {"prompt": [r.randrange(1000, 40000) for _ in range(N_PROMPT)], "max_tokens": N_OUTPUT, "temperature": 0, "ignore_eos": True,
            "stream": True, "logprobs": 0}
    q = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                               {"Content-Type": "application/json", HEADER: who})
    t0, first, n = time.monotonic(), None, 0
    with urllib.request.urlopen(q, timeout=3600) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                first, n = first or time.monotonic() - t0, n + 1
    return first, t0, time.monotonic(), n


def flood(server, a, seed):
    """The other tenant's times to the first token, and tokens per second until the flood has ended: behind it the other tenant's
    requests are alone, one after another, and say nothing of throughput."""
    done, others, threads = [], [], []
    t0 = time.monotonic()
    for i in range(a.flood):
        threads.append(threading.Thread(target=lambda i=i: done.append(send(server.port, "flood", f"{seed} {i}"))))
        threads[-1].start()
    for i in range(a.others):
        time.sleep(1)
        others.append(send(server.port, "other", f"{seed} other {i}"))
    for t in threads:
        t.join()
    end = max(x[2] for x in done)
    n = sum(x[3] for x in done + others if x[2] <= end)
    return {"first_s": [x[0] for x in others], "tokens_per_s": n / (end - t0), "failed": a.flood - len(done)}


def service_s(server):
    """The time of a request among as many as run at once: what one of the flood takes once it is admitted."""
    out, threads = [], []
    for i in range(SEQS):
        threads.append(threading.Thread(target=lambda i=i: out.append(send(server.port, "alone", f"alone {i}"))))
        threads[-1].start()
    for t in threads:
        t.join()
    return median([end - start for _, start, end, _ in out])


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--flood", type=int, default=1000)
    a.add_argument("--others", type=int, default=8)
    a.add_argument("--rounds", type=int, default=1)
    a = a.parse_args()
    servers, runs, own = {}, {"fair": [], "fcfs": []}, {}
    try:
        for p in runs:
            servers[p] = vramd_server(*OPTIONS, "--max-waiting", a.flood * 8 // 7 + 64, # an eighth of the queue is kept for tenants that have nothing in it
                                      "--scheduler-policy", p)
            service_s(servers[p])
            own[p] = service_s(servers[p])
        for i in range(a.rounds):
            for p in list(runs) if i % 2 == 0 else reversed(list(runs)):
                runs[p].append(flood(servers[p], a, f"round {i}"))
                print(f"round {i}: {p}: first token after {max(runs[p][-1]['first_s']):.2f} s at most, own service "
                      f"{own[p]:.2f} s, {runs[p][-1]['tokens_per_s']:.1f} tokens/s", flush=True)
    finally:
        for s in servers.values():
            s.stop()
    rows = [{"policy": p, "service_s": round(own[p], 3),
             "first_token_services_max": round(max(x for r in runs[p] for x in r["first_s"]) / own[p], 2),
             "first_token_services_p50": round(median([x for r in runs[p] for x in r["first_s"]]) / own[p], 2),
             "tokens_per_s": round(median([r["tokens_per_s"] for r in runs[p]]), 1),
             "ratio": round(median([r["tokens_per_s"] / b["tokens_per_s"] for r, b in zip(runs[p], runs["fcfs"])]), 3),
             "failed": sum(r["failed"] for r in runs[p])} for p in runs]
    for r in rows:
        print(r)
    save("fair", rows, flood=a.flood, others=a.others, rounds=a.rounds, max_num_seqs=SEQS, prompt_tokens=N_PROMPT, output_tokens=N_OUTPUT)


if __name__ == "__main__":
    main()
