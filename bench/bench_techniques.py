#!/usr/bin/env python3
"""What a technique of serving gives, against the way without it: memory by the server's own account, tokens per second,
latency. The variants of a technique are servers side by side, which get the same requests in turn; ratios are medians of the
rounds'. Rows of the techniques that are measured replace those in bench/results/techniques-CPU.json; the tables of
docs/techniques.md are made of that file, and those of techniques that it lacks stay as they are.

    bench_techniques.py [T[,T...]] [--rounds N] [--requests N] [--tokens N]     make techniques T=attention,batching,kv
    bench_techniques.py weights --only quality      on a busy machine: no speeds; then --only speed on a quiet one adds them
    bench_techniques.py weights --continue          after a run that was stopped: rows of as many tokens are not measured again
    bench_techniques.py --tables FILE               only the tables, of that file"""

import argparse
import random
import sys

import batching
import offload
import weights
from bench_common import *

NOT_HELD = ("http", "loading")     # classes whose plan is a limit, or of loading alone
UNDER_LOAD = "batching under load" # with T=batching; bench/batching.py
WEIGHTS = "weights"                # bench/weights.py
OFFLOAD = "offload"                # bench/offload.py: bytes alone, by name alone, since it needs make cuda-shim; a file of its own
QAT = "qat"                        # bench/run.sh qat, a file of its own
PAGE = ROOT / "docs" / "techniques.md"


def prompt(r, n):
    return [r.randrange(1000, 40000) for _ in range(n)]


def body(r, n_prompt, n_output, i):
    return {"prompt": prompt(r, n_prompt), "max_tokens": n_output, "temperature": 1, "seed": i, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}


def mixed(r):
    """Outputs of very different lengths: 4 to 64 tokens, most of them short."""
    return [body(r, r.randrange(8, 32), min(64, 4 + int(r.expovariate(1 / 12))), i) for i in range(24)]


def deep(r):
    """Few streams far into their context: attention and the KV cache are a good part of a step."""
    return [body(r, 200, 16, i) for i in range(4)]


def long_prompts(r):
    return [body(r, 1000, 4, i) for i in range(1)]


def shared_prompts(r):
    """Requests that begin with the same 128 tokens, as with a system prompt; outputs of very different lengths."""
    start = prompt(random.Random("shared"), 128)
    return [{**b, "prompt": start + b["prompt"]} for b in mixed(r)]


def very_long_prompts(r):
    return [body(r, 3000, 16, i) for i in range(1)]


def mixture(folder):
    """A random mixture of experts: 4 layers of 8 experts each, 2 of them used."""
    path = Path(folder) / "mixture.gguf"
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", "moe", "--type", "Q4_K", "--layers", "4", "--vocab", "40000"],
                       check=True, stdout=subprocess.DEVNULL)
    return path


def instead(batching="static", attention="unfused", kv="f16", prefixes=False):
    """Options: those of a plain server, but for some."""
    return ["--batching", batching, "--attention", attention, "--kv-cache-dtype", kv, *([] if prefixes else ["--no-prefix-caching"])]


# model: makes another one than the test model in a folder; classes: of memory, in the table; options: of every variant; variants: (name, options, and where they are not the test model's a type of weights); load: (requests, streams at once) of a round
TECHNIQUES = {
    "batching": {
        "about": "24 requests of 8 to 31 prompt tokens and 4 to 64 output tokens over 12 connections, 6 sequences at once",
        "options": ["--max-num-seqs", 6, "--max-model-len", 256, "--kv-cache-tokens", 2048],
        "variants": [(v, ["--batching", v]) for v in ("continuous", "dynamic", "static")],
        "load": (mixed, 12)},
    "kv": {
        "about": "4 streams of 200 prompt tokens and 16 output tokens each; a KV cache of 4,096 tokens",
        "options": ["--max-num-seqs", 4, "--max-model-len", 512, "--kv-cache-tokens", 4096, "--no-prefix-caching"],
        "variants": [(v, ["--kv-cache-dtype", v]) for v in ("f16", "f32", "bf16", "int8", "q8_0", "fp8", "int4")],
        "load": (deep, 4)},
    "attention": {
        "about": "a prompt of 1,000 tokens, 4 output tokens",
        "options": ["--max-num-seqs", 2, "--max-model-len", 1024, "--kv-cache-tokens", 2048, "--no-prefix-caching"],
        "variants": [(v, ["--attention", v]) for v in ("fused", "unfused")],
        "load": (long_prompts, 1)},
    "long": {
        "about": "a prompt of 3,000 tokens, 16 output tokens; a KV cache of 4,096 tokens",
        "options": ["--max-num-seqs", 1, "--max-model-len", 4096, "--kv-cache-tokens", 4096, "--no-prefix-caching"],
        "variants": [("f32, unfused", ["--kv-cache-dtype", "f32", "--attention", "unfused"]), ("f16, unfused", ["--attention", "unfused"]),
                     ("f16", []), ("int8", ["--kv-cache-dtype", "int8"]), ("int4", ["--kv-cache-dtype", "int4"])],
        "load": (very_long_prompts, 1)},
    "experts": {
        "about": "4 streams of 200 prompt tokens and 16 output tokens each; random weights, 4 layers of 8 experts, 2 of them used, in Q4_K",
        "model": mixture, "classes": ("experts", "weights"),
        "options": ["--max-num-seqs", 4, "--max-model-len", 512, "--kv-cache-tokens", 2048, "--no-prefix-caching", "--backend", "cpu"],
        "variants": [(v, ["--expert-memory", v]) for v in ("all", "75%", "50%", "25%", "10%")],
        "load": (deep, 4)},
    "throughput": {
        "about": "24 requests that begin with the same 128 tokens, then 8 to 31 of their own, 4 to 64 output tokens, all sent at once",
        "options": ["--max-model-len", 256, "--kv-cache-tokens", 4096],
        "variants": [("one at a time", ["--max-num-seqs", 1, "--no-prefix-caching"]),
                     ("static, 12", ["--max-num-seqs", 12, "--batching", "static", "--no-prefix-caching"]),
                     ("continuous, 12", ["--max-num-seqs", 12, "--no-prefix-caching"]), ("and prefixes shared", ["--max-num-seqs", 12])],
        "load": (shared_prompts, 24)},
    "combine": {
        "about": "24 requests that begin with the same 128 tokens, then 8 to 31 of their own, 4 to 64 output tokens over 12 connections, 6 at once",
        "options": ["--max-num-seqs", 6, "--max-model-len", 256, "--kv-cache-tokens", 2048],
        "variants": [("nothing", instead(), "BF16"), ("Q8_0 weights", instead(), "Q8_0"), ("Q4_0 weights", instead(), "Q4_0"),
                     ("fused attention", instead(attention="fused"), "BF16"),
                     ("and an int8 cache", instead(attention="fused", kv="int8"), "BF16"),
                     ("continuous batching", instead("continuous"), "BF16"), ("prefixes shared", instead(prefixes=True), "BF16"),
                     ("all, with Q4_0", instead("continuous", "fused", "int8", True), "Q4_0")],
        "load": (shared_prompts, 12)},
    "parallel": {
        "about": "24 requests of 8 to 31 prompt tokens and 4 to 64 output tokens over 12 connections, 6 sequences at once",
        "options": ["--max-num-seqs", 6, "--max-model-len", 256, "--kv-cache-tokens", 2048],
        "variants": [("one process", []), ("2 ranks", ["--tensor-parallel-size", 2]), ("2 stages", ["--pipeline-parallel-size", 2])],
        "load": (mixed, 12)},
}


def exists(options, model):
    """Whether this build has the variant, on this machine."""
    p = subprocess.run([BUILD / "vramd", "serve", "--check", "--model", model or model_path(), *map(str, options)], capture_output=True)
    return p.returncode == 0


def classes_of(t):
    return t.get("classes", ("kv", "workspace"))


def account(server, t):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/memory") as r:
        m = json.load(r)
    ranks = [m, *m.get("ranks", [])[1:]]
    by = [{c["class"]: c["plan_bytes"] for c in r["classes"]} for r in ranks]
    held = {"held_bytes": m["ledger_bytes"]} if "model" in t else {}
    out = {"bytes": m["plan_bytes"], **held, **{f"{c}_bytes": sum(b[c] for b in by) for c in classes_of(t)}}
    if len(ranks) > 1:
        out["bytes"] = sum(sum(v for c, v in b.items() if c != "loading") for b in by)
        out["ranks"] = [{"plan_bytes": sum(x["plan_bytes"] for x in r["classes"] if x["class"] not in NOT_HELD),
                         "ledger_bytes": sum(x["ledger_bytes"] for x in r["classes"] if x["class"] not in NOT_HELD)} for r in ranks]
    return out


def measure(server, t, seed):
    make, streams = t["load"]
    bodies = make(random.Random(seed))
    got = run_load(server.port, streams, bodies)
    good = [g for g in got if g["ok"] and g["tokens"] == bodies[g["line"]]["max_tokens"]]
    wall = max(g["start_us"] + g["total_us"] for g in got) / 1e6
    tokens = lambda g: g["tokens"] + len(bodies[g["line"]]["prompt"])
    return {"output_tokens_per_s": sum(g["tokens"] for g in good) / wall, "tokens_per_s": sum(map(tokens, good)) / wall,
            "ttft_ms": [g["ttft_us"] / 1e3 for g in good], "e2e_ms": [g["total_us"] / 1e3 for g in good],
            "itl_ms": [x / 1e3 for g in good for x in g["gaps_us"]], "failed": len(bodies) - len(good)}


def model_of(t, kinds, folder):
    """The technique's own; or the test model with its numbers in another type; of none: as it is."""
    if "model" in t:
        return t["model"](folder)
    path = Path(folder) / f"{kinds[0]}.gguf" if kinds else None
    if kinds and not path.exists():
        subprocess.run([BUILD / "vramd", "quantize", model_path(), path, "--type", kinds[0], "--requantize"], check=True, stdout=subprocess.DEVNULL)
    return path


def run(name, rounds):
    with tempfile.TemporaryDirectory() as folder:
        return run_in(folder, name, rounds)


def run_in(folder, name, rounds):
    t = TECHNIQUES[name]
    found = [(v, o, model_of(t, kinds, folder)) for v, o, *kinds in t["variants"]]
    found = [(v, o, model) for v, o, model in found if exists([*t["options"], *o], model)]
    variants = [(v, o) for v, o, _ in found]
    if not variants:
        return []
    servers, runs = {}, {v: [] for v, _ in variants}
    try:
        for v, o, model in found:
            servers[v] = vramd_server(*t["options"], *o, model=model)
            run_load(servers[v].port, 1, [body(random.Random(name), 8, 4, 0)])
        for i in range(rounds):
            order = variants if i % 2 == 0 else variants[::-1]
            for v, _ in order:
                runs[v].append(measure(servers[v], t, f"{name} {i}"))
        return [row(name, v, account(servers[v], t), runs[v], runs[variants[0][0]]) for v, _ in variants]
    finally:
        for s in servers.values():
            s.stop()


def row(name, variant, memory, runs, base):
    pool = lambda key: [x for r in runs for x in r[key]]
    rate = lambda r: r["tokens_per_s"]
    out = {"technique": name, "variant": variant, **memory,
           "output_tokens_per_s": round(median([r["output_tokens_per_s"] for r in runs]), 1),
           "tokens_per_s": round(median([rate(r) for r in runs]), 1),
           "ratio": round(median([rate(a) / rate(b) for a, b in zip(runs, base)]), 3)}
    for key, p in (("ttft_ms", 50), ("ttft_ms", 99), ("itl_ms", 50), ("e2e_ms", 50), ("e2e_ms", 99)):
        v = percentile(pool(key), p)
        out[f"{key}_p{p}"] = None if v is None else round(v, 2)
    return {**out, "failed": sum(r["failed"] for r in runs)}


# ---- tables ----

def mib(n):
    return f"{n / 2**20:,.1f}"


def table(name, doc):
    """The lines between the marks of a technique; None: the document has nothing of it."""
    rows = [r for r in doc["rows"] if r["technique"] == name]
    if not rows:
        return None
    if name == UNDER_LOAD:
        return batching.table(rows)
    if name == WEIGHTS:
        return weights.table(rows, doc)
    if name == OFFLOAD:
        return offload.table(rows)
    m = doc["machine"]
    t = TECHNIQUES[name]
    model, classes, held = "" if "model" in t else f" {doc['model_file']},", classes_of(t), "held_bytes" in rows[0]
    names = "".join(f" {'KV' if c == 'kv' else c}, MiB |" for c in classes)
    out = [f"{t['about'][0].upper()}{t['about'][1:]}.{model} {doc['threads']} threads "
           f"of {m['cpu']} ({' '.join(f for f in m['flags'] if f.startswith(('avx', 'amx', 'fma', 'f16c')))}), load average "
           f"{doc['load_average'].get(name, 0):.0f} at the start, {doc['rounds'].get(name, 0)} rounds in turn.", "",
           f"| {name} | planned, MiB |{' held, MiB |' if held else ''}{names} tokens/s | against {rows[0]['variant']} | first token, ms, p50 / p99 | "
           "between tokens, ms, p50 | request, ms, p50 / p99 |",
           "|---|---:|---:|---:|---:|---:|---:|---:|---:|" + "---:|" * held]
    n = lambda v: "-" if v is None else f"{v:,.0f}" if v >= 100 else f"{v:.1f}"
    for r in rows:
        parts = [r["bytes"], *([r["held_bytes"]] if held else []), *(r[f"{c}_bytes"] for c in classes)]
        out.append(f"| {r['variant']} | {' | '.join(map(mib, parts))} | {n(r['tokens_per_s'])} | "
                   f"{r['ratio']:.2f} | {n(r['ttft_ms_p50'])} / {n(r['ttft_ms_p99'])} | {n(r['itl_ms_p50'])} | "
                   f"{n(r['e2e_ms_p50'])} / {n(r['e2e_ms_p99'])} |")
    for r in rows:
        if r.get("ranks"):
            out += ["", f"{r['variant']}, bytes planned and held by each: " + "; ".join(
                f"{x['plan_bytes']:,} and {x['ledger_bytes']:,}" for x in r["ranks"]) + " (but requests' memory, whose plan is a limit)."]
    return "\n".join(out) + "\n"


def lines_of(name, path):
    """What stands between the marks of a table, of the results file that the table is of; None: the file has nothing of it."""
    doc = json.loads(path.read_text())
    new = weights.qat_table(doc) if name == QAT else table(name, doc)
    return new and f"{new}\n`bench/results/{path.name}`, {doc['date']}, commit {doc['commit']}.\n"


def write_page(path):
    text = PAGE.read_text()
    for name in (*TECHNIQUES, UNDER_LOAD, WEIGHTS, OFFLOAD, QAT):
        own = path.with_name(path.name.replace("techniques", name, 1)) if name in (OFFLOAD, QAT) else path # of the same machine
        new = lines_of(name, own) if own.exists() else None
        if new:
            text = re.sub(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", lambda m, new=new: m[1] + new + m[2], text, flags=re.S)
    PAGE.write_text(text)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def measured(name, o, old):
    """Rows of a technique as they are measured; old: those of the weights, of an earlier run."""
    if name == WEIGHTS:
        return weights.run(o.tokens, o.fit, lambda n_prompt, n_output: body(random.Random(n_prompt), n_prompt, n_output, 0), o.only, old, o.go_on)
    return run(name, o.rounds) + (batching.run(o.rounds, o.requests) if name == "batching" else [])


def same(a, b):
    """Rows of the same weights: of other techniques no row is there twice."""
    return all(r["technique"] == WEIGHTS for r in (a, b)) and all(a[key] == b[key] for key in ("variant", "method", "activations"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("techniques", nargs="?", default=",".join([*TECHNIQUES, WEIGHTS]))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--requests", type=int, default=200, help="of each load of batching.py")
    p.add_argument("--tokens", type=int, default=2048, help="that are evaluated, of T=weights")
    p.add_argument("--fit", type=int, default=8192, help="that are calibrated on, of T=weights")
    p.add_argument("--only", choices=["quality", "speed"], help="of T=weights: the others of its columns stay")
    p.add_argument("--continue", dest="go_on", action="store_true", help="of T=weights: rows that are there stay")
    p.add_argument("--tables", type=Path)
    o = p.parse_args()
    if o.tables:
        return write_page(o.tables)
    names = o.techniques.split(",")
    if set(names) - {*TECHNIQUES, WEIGHTS, OFFLOAD}:
        sys.exit(f"techniques: {', '.join([*TECHNIQUES, WEIGHTS, OFFLOAD])}")
    path = ROOT / "bench" / "results" / f"techniques-{cpu_slug()}.json"
    old = json.loads(path.read_text()) if path.exists() else {"rows": [], "rounds": {}, "load_average": {}}
    rows, rounds, loads = old["rows"], old["rounds"], old["load_average"]
    for name in names:
        if name == OFFLOAD:
            save(OFFLOAD, offload.run())
            write_page(path)
            continue
        loads[name], rounds[name] = os.getloadavg()[0], o.rounds
        old = [r for r in rows if r["technique"] == name == WEIGHTS and (r["tokens"], r["fit"]) == (o.tokens, o.fit)]
        rows = [r for r in rows if r["technique"] not in (name, name == "batching" and UNDER_LOAD)] + old
        for new in measured(name, o, old):
            print(new, flush=True)
            rows = [r for r in rows if not same(r, new)] + [new]
            rows.sort(key=lambda r: [*TECHNIQUES, UNDER_LOAD, WEIGHTS].index(r["technique"]))
            save("techniques", rows, rounds=rounds, load_average=loads)
        write_page(path)


if __name__ == "__main__":
    main()
