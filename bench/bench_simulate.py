#!/usr/bin/env python3
"""Is the simulator right? The same arrivals, live and simulated: requests of 32 prompt and 16 output tokens in the mean, Poisson, at
30, 60 and 85% of what a closed loop gets through. Two equal servers: one with a step log, which a closed loop and Poisson loads of other
requests calibrate, and one whose answers are compared. The log gives the simulator the times of steps and of the host, its client the
time of HTTP: what it sees of TTFT less what the server reports of it. Each of REPEATS rounds calibrates and then runs each load live, so
that both see the same drift of the machine; then each load is simulated once. A difference is that of the simulated figure from the mean
of the live runs; beside it the scatter of these, the standard deviation of one run, of the mean.

    bench_simulate.py [--requests N] [--repeats N] [--calibration N] [--seed N]     make bench B=simulate

With 1,000 requests and 5 repeats about 17 minutes on two cores. Run it alone on the machine."""

import argparse
import urllib.request

from batching import live, tool, write_trace
from bench_common import *

PROMPT, OUTPUT, SEQS = (16, 48), (8, 24), 32
LOADS = (0.3, 0.6, 0.85)
OPTIONS = ["--max-num-seqs", SEQS, "--max-model-len", 256, "--kv-cache-tokens", SEQS * 256, "--no-prefix-caching"]
FIGURES = {"tpot_mean": ("tpot_ms", "mean"), "tpot_p99": ("tpot_ms", "p99"), "ttft_mean": ("ttft_ms", "mean"), "ttft_p99": ("ttft_ms", "p99"),
           "e2e_mean": ("e2e_ms", "mean"), "tokens_per_s": ("output_tokens_per_s", None)}


def lengths(r):
    return r.randint(*PROMPT), r.randint(*OUTPUT)


def first_tokens(server):
    """Sum in ms, and count, of the times to the first token that the server itself has measured."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    value = lambda name: sum(float(x.split()[-1]) for x in text.splitlines() if re.match(rf"vramd_time_to_first_token_seconds_{name}\b", x))
    return 1e3 * value("sum"), value("count")


def closed_loop(server, out, n, seed):
    """requests/s of SEQS clients of which each sends its next request when it has an answer."""
    return live(server, out, "--concurrency", SEQS, "--requests", n, "--prompt-tokens", sum(PROMPT) // 2, "--output-tokens",
                sum(OUTPUT) // 2, "--seed", seed, "--warmup", SEQS)["requests_per_s"]


def calibrate(server, folder, capacity, n, seed):
    """Steps of every size, for the log; returns the ms of HTTP of a request, at the middle load."""
    out, trace = folder / "bench.json", folder / "calibration.csv"
    closed_loop(server, out, n, seed)
    for load in LOADS:
        write_trace(trace, load * capacity, n, f"calibration {seed} {load}", lengths)
        before = first_tokens(server)
        level = live(server, out, "--trace", trace)
        after = first_tokens(server)
        if load == LOADS[1]:
            http = level["ttft_ms"]["mean"] - (after[0] - before[0]) / (after[1] - before[1])
    return http


def figure(result, name):
    group, member = FIGURES[name]
    return result[group][member] if member else result[group]


def compare(load, rate, runs, simulated):
    row = {"load": load, "requests_per_s": round(rate, 2), "repeats": len(runs)}
    for name in FIGURES:
        v = [figure(r, name) for r in runs]
        mean = statistics.mean(v)
        row[name] = {"live": round(mean, 3), "simulated": round(figure(simulated, name), 3),
                     "difference_percent": round(100 * (figure(simulated, name) / mean - 1), 2),
                     "scatter_percent": round(100 * statistics.stdev(v) / mean, 2) if len(v) > 1 else None}
    return row


def show(row):
    print(f"load {100 * row['load']:.0f}%, {row['requests_per_s']} requests/s")
    for name in FIGURES:
        d = row[name]
        scatter = "-" if d["scatter_percent"] is None else f"{d['scatter_percent']:.1f}%"
        print(f"  {name:13} live {d['live']:10.2f}  simulated {d['simulated']:10.2f}  difference {d['difference_percent']:+6.1f}%  "
              f"scatter of live runs {scatter}", flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--requests", type=int, default=1000)
    a.add_argument("--repeats", type=int, default=5)
    a.add_argument("--calibration", type=int, default=1000, help="requests of each calibrating load, of all rounds")
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        log = folder / "steps"
        server, timed = vramd_server(*OPTIONS), vramd_server(*OPTIONS, "--step-log", log)
        try:
            capacity = closed_loop(server, folder / "bench.json", a.calibration, a.seed)
            print(f"capacity {capacity:.2f} requests/s", flush=True)
            traces = {load: folder / f"load-{load}.csv" for load in LOADS}
            for load in LOADS:
                write_trace(traces[load], load * capacity, a.requests, f"{a.seed} {load}", lengths)
            runs, http = {load: [] for load in LOADS}, []
            for i in range(a.repeats):
                http.append(calibrate(timed, folder, capacity, a.calibration // a.repeats, a.seed + 1 + i))
                for load in LOADS if i % 2 == 0 else LOADS[::-1]:
                    runs[load].append(live(server, folder / "bench.json", "--trace", traces[load]))
            http_ms = max(0, statistics.mean(http))
        finally:
            server.stop()
            timed.stop()
        simulate = lambda load: json.loads(tool("simulate", "--step-log", log, "--trace", traces[load], "--http-time", f"{http_ms}ms", "--json"))
        simulated = {load: simulate(load) for load in LOADS}
        rows = [compare(load, load * capacity, runs[load], simulated[load]) for load in LOADS]
        cost = simulated[LOADS[0]]["cost_model"]
        print(f"costs {cost['source']}")
    for row in rows:
        show(row)
    save("simulate", rows, requests=a.requests, prompt_tokens=PROMPT, output_tokens=OUTPUT, max_num_seqs=SEQS, capacity_requests_per_s=round(capacity, 2),
         http_ms_per_request=round(http_ms, 3), host_us_per_step=simulated[LOADS[0]]["host_us_per_step"], cost_model=cost)


if __name__ == "__main__":
    main()
