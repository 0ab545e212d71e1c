"""Flat memory: mixed requests over 64 connections against a tiny model, once for each type of KV cache; what the process
holds (bytes that malloc has given out, anonymous memory and swap, descriptors, threads) is read at rest between the
segments of the load. After the warm-up neither what malloc has given out nor the anonymous memory may grow by more
than the heap wastes (WASTE), by the last sample less the first and by the line through all of them.

    soak_flat.py N [--types f16,int8] [--peer] [--save]
        --peer: the same load on llama-server, 1 of 100 requests, figures beside

    A type that takes longer than limit() says is an error; llama-server is stopped then, with what it has served.
        --save: the figures to bench/results/memory-soak-CPU.json

The requests are those of soak_load.c. What a daemon is asked while it serves, beside them, are the rows of CONTROLS: a
budget that moves, and long prompts whose prefixes go to a small disk tier and come from it."""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

PAGE = os.sysconf("SC_PAGE_SIZE")
CONNECTIONS, SEGMENTS, WARM_UP = 64, 16, 5  # segments: all, and those that only warm up
# glibc gives the top of its heap back to the kernel now and then, and takes it again: kept, there is less noise. Without
# its caches for each thread, whose blocks count as given out, the bytes given out are exact.
KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
# A block that lives on may be given 16 bytes more than before, where what is left of a hole is no block: a few may. A block that
# is lost in each segment (the smallest has 32 bytes) is more than twice as much. Streams that end in another order leave other
# holes: the heap's top, which moves by 132 KiB, may move once or twice more.
WASTE = {"heap": 128, "bytes": 288 << 10, "fds": 0, "threads": 0}
OPTIONS = ["--max-model-len", "1024", "--max-num-seqs", "24", "--max-waiting", "64", "--kv-cache-tokens", "3072",
           "--grammar-cache-bytes", "2MiB", "--threads", "1", "--no-log-requests"]
DISK_BYTES = 3 << 19  # some 20 chunks of f16, where the prompts of use_disk have 120
TYPES = "f16 bf16 f32 int8 q8_0 fp8 int4".split()


def limit(n):
    """Most seconds for n requests, which take a tenth of it where nothing else runs."""
    return 120 + n / 20


def of_process(pid):
    """{bytes, fds, threads} of a process, and heap = 0, which only the daemon itself can say; bytes: anonymous memory and what of it is in swap. Of its pages one by one
    (smaps_rollup): RssAnon of /proc/PID/status may be off by dozens of pages for each thread or processor."""
    rows = {}
    for line in (Path(f"/proc/{pid}/smaps_rollup").read_text() + Path(f"/proc/{pid}/status").read_text()).splitlines():
        name, _, value = line.partition(":")
        rows[name] = value.split()
    return {"bytes": (int(rows["Anonymous"][0]) + int(rows["Swap"][0])) * 1024,
            "heap": 0, "fds": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(rows["Threads"][0])}


def of_daemon(daemon):
    return {**of_process(daemon.process.pid), "heap": daemon.memory()["process"]["heap_bytes"]}


def slope(values):
    """Least squares: growth by sample."""
    n, mean = len(values), sum(values) / len(values)
    middle = (n - 1) / 2
    return sum((i - middle) * (v - mean) for i, v in enumerate(values)) / sum((i - middle) ** 2 for i in range(n))


def growth(samples):
    """Of the most that was held up to each sample, after the warm-up: the last less the first, and what the line through all
    of them rises by. What is given back and taken again (malloc_trim when a crowd of connections has left) is no growth."""
    out = {}
    for key in WASTE:
        v = [max(s[key] for s in samples[:i + 1]) for i in range(WARM_UP, len(samples))]
        out[key] = max(v[-1] - v[0], round(slope(v) * (len(v) - 1)))
    return out


def grew(g):
    return any(g[key] > most for key, most in WASTE.items())


class Watch(threading.Thread):
    """The most that a process held while it was under load."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.quit = pid, of_process(pid), threading.Event()

    def run(self):
        while not self.quit.wait(0.5):
            try:
                now = of_process(self.pid)
            except (FileNotFoundError, KeyError):
                return
            self.most = {k: max(v, now[k]) for k, v in self.most.items()}


def move_budget(daemon, rng):
    """The smallest budget and one between, in turn, and back: pages go and come while requests run."""
    with httpx.Client(base_url=daemon.url, timeout=120) as http:
        m = http.get("/v1/memory").json()
        small, full = m["smallest_budget_bytes"], m["full_budget_bytes"]
        for budget in [small, small + (full - small) // 2] * 2 + [full]:
            assert http.put("/v1/memory", json={"budget_bytes": budget}).status_code in (200, 202)
            time.sleep(rng.uniform(0, 0.1))
        end = time.monotonic() + 60
        while http.get("/v1/memory").json()["resizing"]:
            assert time.monotonic() < end
            time.sleep(0.02)


def use_disk(daemon, rng):
    """Long prompts, some of which came before: their chunks are stored, others go for them, and some come back."""
    with httpx.Client(base_url=daemon.url, timeout=120) as http:
        for seed in rng.choices(range(24), k=6):
            numbers = random.Random(seed)
            r = http.post("/v1/completions", json={"prompt": [numbers.randrange(300) for _ in range(660)], "max_tokens": 2})
            assert r.status_code in (200, 429, 503), r.text


# What is done while the load runs, once in each segment: (name, whether this daemon can, what). Each takes a daemon and a
# random.Random, and must leave the daemon as it was.
CONTROLS = [("moving budget", lambda daemon: True, move_budget),
            ("disk tier", lambda daemon: "disk" in daemon.memory()["kv"], use_disk)]


def controls_for(daemon):
    return [(name, act) for name, can, act in CONTROLS if can(daemon)]


def load(binary, port, connections, first, n, *more, until=None):
    """(exit code, counts). until: time.monotonic() at which subprocess.TimeoutExpired ends it."""
    p = subprocess.run([binary, str(port), str(connections), str(first), str(n), *map(str, more)], text=True, stdout=subprocess.PIPE,
                       timeout=until and max(0, until - time.monotonic()))
    return p.returncode, json.loads(p.stdout or "{}")


def at_rest(daemon):
    """Waits until nothing runs and no connection but ours is open."""
    daemon.wait_free()
    end = time.monotonic() + 60
    while daemon_counter(daemon, "vramd_http_connections") != 1 or (m := daemon.memory())["sequences"] or m["kv"].get("disk", {}).get("storing"):
        assert time.monotonic() < end, daemon.http.get("/metrics").text
        time.sleep(0.05)


def daemon_counter(daemon, name):
    (row,) = [x for x in daemon.http.get("/metrics").text.splitlines() if x.startswith(name + "{")]
    return int(row.split()[-1])


def load_with_controls(daemon, binary, rng, first, n, until=None):
    """load, and each control of this daemon once beside it."""
    doing = [threading.Thread(target=act, args=(daemon, rng)) for _, act in controls_for(daemon)]
    for t in doing:
        t.start()
    result = load(binary, daemon.port, CONNECTIONS, first, n, until=until)
    for t in doing:
        t.join()
    return result


def soak(daemon, binary, n, folder, first=0):
    """n requests in segments: (samples, most, counts). Asserts that answers are right, that the ledger keeps the plan, and that the folder of
    the disk tier has the files that the account has."""
    pid, rng, counts, samples = daemon.process.pid, random.Random(n), {}, []
    watch = Watch(pid)
    watch.start()
    until = time.monotonic() + limit(n)
    # The heap's waste goes with the most streams that ever were open at once: so many first.
    assert load(binary, daemon.port, CONNECTIONS * 5 // 4, 0, 8 * CONNECTIONS, 2, "slow")[0] == 0
    for i in range(SEGMENTS):
        share = n * (i + 1) // SEGMENTS - n * i // SEGMENTS
        code, ended = load_with_controls(daemon, binary, rng, first + n * i // SEGMENTS, share, until)
        assert code == 0, f"answers were wrong: {ended}"
        for k, v in ended.items():
            counts[k] = counts.get(k, 0) + v
        at_rest(daemon)
        samples.append(of_daemon(daemon))
    watch.quit.set()
    watch.join()
    m = daemon.memory()
    assert m["peak_bytes"] <= m["plan_bytes"] and m["sequences"] == []
    if "disk" in m["kv"]:
        disk = m["kv"]["disk"]
        counts |= {f"disk {k}": disk[k] for k in ("loads", "stores", "evictions")}
        assert disk["load_errors"] == disk["store_errors"] == 0, disk
        files = [f.stat().st_size for f in folder.glob("**/*.kv")]
        assert (len(files), sum(files)) == (disk["chunks"], disk["bytes"]) and disk["bytes"] <= DISK_BYTES, (disk, files)
    for c in m["classes"]:
        assert c["ledger_bytes"] <= c["peak_bytes"] <= c["plan_bytes"], c
    return samples, watch.most, counts


def row(name, samples, most, seconds, n):
    first, last = {k: max(s[k] for s in samples[:WARM_UP + 1]) for k in samples[0]}, samples[-1]
    g = growth(samples)
    print(f"{name:14} {n:9,} {seconds:7.0f} {first['bytes']:14,} {last['bytes']:14,} {g['bytes']:12,} {g['heap']:8,} {most['bytes']:14,} "
          f"{last['fds']:5} {g['fds']:+3} {last['threads']:4} {g['threads']:+3}", flush=True)
    return {"case": name, "requests": n, "seconds": round(seconds), "growth": g, "warm": first, "end": last,
            "most_bytes": most["bytes"]}


HEAD = (f"{'':14} {'requests':>9} {'seconds':>7} {'warm, bytes':>14} {'end, bytes':>14} {'growth':>12} {'of heap':>8} {'most':>14} "
        f"{'fds':>5}     thr")


def serves(model, *options):
    from harness import BINARY
    return subprocess.run([BINARY, "serve", "--check", "--model", model, *OPTIONS, *options], capture_output=True).returncode == 0


def types_here(model):
    return [t for t in TYPES if serves(model, "--kv-cache-dtype", t)]


def options_of(model, kv_type, folder):
    """Of the daemon that is soaked: with a disk tier in folder, where this type can have one."""
    options, disk = ["--kv-cache-dtype", kv_type], ["--kv-disk", str(folder), "--kv-disk-bytes", str(DISK_BYTES)]
    return ["--model", model, *OPTIONS, *options, *(disk if serves(model, *options, *disk) else [])]


def make_model(folder):
    from tiny_model import write
    path = str(Path(folder) / "tiny.gguf")
    write(path, "F16", width=64, heads=1, kv_heads=1)  # a head of 64: every type of KV cache can hold it
    return path


def peer_server():
    """The llama-server that bench/build_peer.sh builds, where it is built, or None."""
    cache = os.environ.get("VRAMD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vramd"
    found = sorted(Path(cache).glob("peer/llama_cpp_python-*/vendor/llama.cpp/build/bin/llama-server"))
    return str(found[-1]) if found else None


def soak_peer(binary, server, model, n):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    p = subprocess.Popen([server, "-m", model, "--port", str(port), "-c", str(24 * 512), "-np", "24", "-t", "1", "-ngl", "0"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert p.poll() is None, "llama-server ended"
            time.sleep(0.1)
        watch, samples, served, until = Watch(p.pid), [], 0, time.monotonic() + limit(n)
        watch.start()
        for i in range(SEGMENTS):
            first, end = n * i // SEGMENTS, n * (i + 1) // SEGMENTS
            try:
                code, _ = load(binary, port, CONNECTIONS, first, end - first, 1, "any", until=until)
            except subprocess.TimeoutExpired:
                break
            assert code == 0
            served = end
            time.sleep(0.5)
            samples.append(of_process(p.pid))
        watch.quit.set()
        watch.join()
        return samples, watch.most, served
    finally:
        p.kill()
        p.wait()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("n", type=int)
    a.add_argument("--types")
    a.add_argument("--peer", action="store_true")
    a.add_argument("--save", action="store_true")
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("VRAMD_TEST_MODEL", make_model(folder))
        model = make_model(folder)
        from harness import BINARY, Daemon
        binary = str(Path(BINARY).parent / "soak_load")
        types = a.types.split(",") if a.types else types_here(model)
        print(f"soak-flat: {a.n:,} requests over {CONNECTIONS} connections, KV cache of {', '.join(types)}\n{HEAD}", flush=True)
        bad, rows = [], []
        for i, t in enumerate(types):
            n = a.n // len(types)
            disk = Path(folder) / f"kv-{t}"
            d, began = Daemon(*options_of(model, t, disk), env=KEEP), time.monotonic()
            samples, most, counts = soak(d, binary, n, disk, n * i)
            resizes = daemon_counter(d, "vramd_memory_resizes_total")
            d.stop()
            rows.append({**row(t, samples, most, time.monotonic() - began, n), "resizes": resizes,
                         **{k.replace(" ", "_"): v for k, v in counts.items() if k.startswith("disk ")}})
            if grew(rows[-1]["growth"]):
                bad.append((t, samples))
        if a.peer:
            server, n, began = peer_server(), max(a.n // 100, 100 * SEGMENTS), time.monotonic()
            if server:
                samples, most, served = soak_peer(binary, server, model, n)
                if len(samples) > WARM_UP + 1:
                    rows.append(row("llama-server", samples, most, time.monotonic() - began, served))
                else:
                    print(f"llama-server   {served} of {n} requests in {time.monotonic() - began:.0f} s: too few to compare")
            else:
                print("llama-server   none is built here (bench/build_peer.sh builds one)")
        for t, samples in bad:
            print(f"soak-flat: {t} grew: {[s['bytes'] for s in samples]} bytes, {[s['heap'] for s in samples]} of malloc, {[s['fds'] for s in samples]} descriptors")
        if a.save:
            sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
            from bench_common import save
            save("memory-soak", rows, model_file="tests/e2e/tiny_model.py", threads=1, connections=CONNECTIONS, segments=SEGMENTS,
                 options=" ".join(OPTIONS))
        return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
