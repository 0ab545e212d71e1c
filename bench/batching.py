"""Ways of batching under load, live and simulated: for bench_techniques.py. Requests with very different lengths, first all at once
(what the server gets through), then Poisson at three quarters of what continuous batching gets through (how long a first token takes).
Live; simulated with the step times of the live server, on the same arrivals; and simulated with those of a GPU-like machine, whose step
takes 5 ms and 25 us a row, with 64 sequences."""

import random

from bench_common import *

VARIANTS = ("continuous", "dynamic", "static")
LOAD, SEQS, GPU_SEQS, GPU_REQUESTS = 0.75, 16, 64, 2000
OPTIONS = ["--max-num-seqs", SEQS, "--max-model-len", 256, "--kv-cache-tokens", SEQS * 256, "--max-waiting", 4096, "--no-prefix-caching"]
GPU = {"step_us": 5000, "row_us": 25}


def tool(*args):
    r = subprocess.run([BUILD / "vramd", *map(str, args)], capture_output=True, text=True)
    if r.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: {r.stderr}")
    return r.stdout


def write_trace(path, rate, n, seed, lengths):
    """An Azure trace, whose times have 7 digits of a second: Poisson. rate None: all at once. lengths: of a request, of a random.Random."""
    r, at = random.Random(seed), 0.0
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for _ in range(n):
        s = int(at)
        prompt, output = lengths(r)
        rows.append(f"2026-01-01 {s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.{int((at - s) * 1e7):07},{prompt},{output}")
        at += r.expovariate(rate) if rate else 0
    path.write_text("\n".join(rows) + "\n")


def live(server, out, *load):
    """The level of a vramd bench in which every request was answered."""
    tool("bench", "--url", f"http://127.0.0.1:{server.port}", "--json", out, "--quiet", *load)
    (level,) = json.loads(out.read_text())["levels"]
    if level["requests"]["ok"] != level["requests"]["sent"]:
        raise RuntimeError(f"requests failed: {level['errors']}")
    return level


def mixed_lengths(r):
    """Most outputs are short, some fill the context."""
    return r.randint(8, 64), min(160, 4 + int(r.expovariate(1 / 24)))


def simulated(flags, trace, variant):
    return json.loads(tool("simulate", *flags, "--batching", variant, "--trace", trace, "--json"))


def figures(prefix, full, part):
    return {f"{prefix}_tokens_per_s": round(full["output_tokens_per_s"], 1), f"{prefix}_ttft_ms": round(part["ttft_ms"]["mean"], 1),
            f"{prefix}_e2e_ms": round(part["e2e_ms"]["mean"], 1)}


def gpu_flags():
    """The machine that makes a step of the test model take as long as GPU says."""
    one = json.loads(tool("simulate", "--model", model_path(), "--bandwidth", "100GB/s", "--operations", "1e12", "--rate", 1, "--requests", 1,
                          "--max-model-len", 256, "--json"))["cost_model"]
    return ["--model", model_path(), "--max-model-len", 256, "--max-num-seqs", GPU_SEQS, "--kv-cache-tokens", GPU_SEQS * 256, "--max-waiting",
            GPU_REQUESTS, "--no-prefix-caching", "--bandwidth", f"{100 * one['us_per_step'] / GPU['step_us']:.4g}GB/s", "--operations",
            f"{1e12 * one['us_per_row'] / GPU['row_us']:.4g}"]


def run_gpu(folder, rows):
    flags, full, part = gpu_flags(), folder / "gpu-full.csv", folder / "gpu-part.csv"
    write_trace(full, None, GPU_REQUESTS, "gpu", mixed_lengths)
    at_once = {v: simulated(flags, full, v) for v in VARIANTS}
    write_trace(part, LOAD * at_once[VARIANTS[0]]["requests_per_s"], GPU_REQUESTS, "gpu", mixed_lengths)
    for row in rows:
        v = row["variant"]
        row.update(figures("gpu_simulated", at_once[v], simulated(flags, part, v)))


def run(rounds, requests):
    with tempfile.TemporaryDirectory() as folder:
        folder, servers = Path(folder), {}
        full, part, out, log = folder / "full.csv", folder / "part.csv", folder / "out.json", folder / "steps"
        write_trace(full, None, requests, "batching", mixed_lengths)
        try:
            for v in VARIANTS:
                servers[v] = vramd_server(*OPTIONS, "--batching", v, *(["--step-log", log] if v == VARIANTS[0] else []))
            live(servers[VARIANTS[0]], out, "--trace", full)
            capacity = live(servers[VARIANTS[0]], out, "--trace", full)["requests_per_s"]
            write_trace(part, LOAD * capacity, requests, "batching", mixed_lengths)
            runs = {v: [] for v in VARIANTS}
            for i in range(rounds):
                for v in VARIANTS if i % 2 == 0 else VARIANTS[::-1]:
                    runs[v].append([live(servers[v], out, "--trace", t) for t in (full, part)])
        finally:
            for s in servers.values():
                s.stop()
        rows = []
        for v in VARIANTS:
            mean = lambda k: lambda *path: statistics.mean(r[k][path[0]] if len(path) == 1 else r[k][path[0]][path[1]] for r in runs[v])
            of_full, of_part = mean(0), mean(1)
            rows.append({"technique": "batching under load", "variant": v, "requests": requests, "rounds": rounds, "load_average": os.getloadavg()[0],
                         "live_tokens_per_s": round(of_full("output_tokens_per_s"), 1), "live_ttft_ms": round(of_part("ttft_ms", "mean"), 1),
                         "live_e2e_ms": round(of_part("e2e_ms", "mean"), 1),
                         **figures("simulated", *(simulated(["--step-log", log], t, v) for t in (full, part)))})
        run_gpu(folder, rows)
        return rows


def table(rows):
    """Lines of docs/techniques.md."""
    base = rows[0]
    out = [f"{base['requests']} requests of 8 to 64 prompt tokens and 4 to 160 output tokens (27 in the mean), {SEQS} sequences at once: all at once "
           f"(tokens/s), and Poisson at {LOAD:.0%} of what continuous batching got through (mean time to the first token, and of a request); "
           f"{base['rounds']} rounds in turn, load average {base['load_average']:.0f}. Simulated: the same arrivals with the step times of the live "
           f"server's [log](simulate.md). GPU-like: {GPU_REQUESTS:,} requests, a step of {GPU['step_us'] / 1000:g} ms and {GPU['row_us']} us a row, "
           f"{GPU_SEQS} sequences, and {LOAD:.0%} of what continuous batching gets through there.", "",
           "| batching | live: tokens/s | first token, ms | request, ms | simulated: tokens/s | first token, ms | request, ms | "
           "GPU-like, simulated: tokens/s | first token, ms | request, ms |",
           "|---|" + "---:|" * 9]
    for r in rows:
        cells = [r["variant"]]
        for p in ("live", "simulated", "gpu_simulated"):
            cells += [f"{r[f'{p}_tokens_per_s']:,.0f} ({r[f'{p}_tokens_per_s'] / base[f'{p}_tokens_per_s']:.2f})", f"{r[f'{p}_ttft_ms']:,.0f}",
                      f"{r[f'{p}_e2e_ms']:,.0f}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"
