#!/usr/bin/env python3
"""What a switch between two models costs that never fit together: alternating requests of one token, each against the same
request where its model is there; the processor's time of all threads, the token's with it, for a machine that has other work. Beside it, in turn, the time to read the file: by the engine's number of threads, in pieces
of 1 MiB, from the page cache, into memory that is there (`read`) and into new memory (`read, new`). All clients' times."""

import argparse
import mmap
import threading

from bench_common import *

PIECE = 1 << 20
OPTIONS = """[model]
max_model_len = 1024
[scheduler]
max_num_seqs = 8
[server]
log_requests = false
"""


class Reader:
    """Reads a file in pieces by several threads into one buffer."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.bytes = os.fstat(self.fd).st_size
        self.kept = self.buffer()

    def buffer(self):
        b = mmap.mmap(-1, self.bytes)
        b.madvise(mmap.MADV_HUGEPAGE)
        return b

    def seconds(self, new=False):
        def work(first):
            for at in range(first * PIECE, self.bytes, THREADS * PIECE):
                os.preadv(self.fd, [to[at:at + PIECE]], at)

        t0 = time.monotonic()
        to = memoryview(self.buffer() if new else self.kept)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return time.monotonic() - t0


def table_of(config):
    """{name: bytes} of `vramd plan`; the front end and the budget, too."""
    text = output_of(BUILD / "vramd", "plan", "--config", config)
    return {k.strip(): int(v.replace(",", "")) for k, v in re.findall(r"^# (\S.{29}) +([\d,]+)", text, re.M)}


def write_config(path, files, memory=""):
    sections = "".join(f"[model {n}]\nfile = {f}\nload = request\n" for n, f in files.items())
    Path(path).write_text(OPTIONS + memory + sections)
    return path


def ask(port, model):
    """Seconds of a request for one token."""
    body = json.dumps({"model": model, "prompt": "The", "max_tokens": 1, "temperature": 0}).encode()
    rq = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
    t0 = time.monotonic()
    with urllib.request.urlopen(rq, timeout=300) as r:
        assert json.load(r)["usage"]["completion_tokens"] == 1
    return time.monotonic() - t0


def cpu_s(pid):
    """Seconds of user and system time."""
    f = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def measure(server, files, rounds):
    readers = {n: Reader(f) for n, f in files.items()}
    pid = server.process.pid
    got = {n: {k: [] for k in ("switch", "stay", "read", "read_new", "switch_cpu", "read_cpu")} for n in files}
    for name in list(files) * 2:  # page cache, memory, libraries
        ask(server.port, name), readers[name].seconds()
    for _ in range(rounds):
        for name, g in got.items():
            t0 = time.process_time()
            g["read"].append(readers[name].seconds())
            g["read_cpu"].append(time.process_time() - t0)
            g["read_new"].append(readers[name].seconds(new=True))
            t0 = cpu_s(pid)
            g["switch"].append(ask(server.port, name))
            g["switch_cpu"].append(cpu_s(pid) - t0)
            g["stay"].append(min(ask(server.port, name) for _ in range(3)))
    return got


def row_of(name, path, g):
    ms = {k: 1e3 * median(v) for k, v in g.items()}
    switch = 1e3 * median([a - b for a, b in zip(g["switch"], g["stay"])])
    bar = 1.1 * ms["read"] + 50
    return {"model": name, "file": Path(path).name, "file_mb": round(Path(path).stat().st_size / 1e6, 1),
            "read_ms": round(ms["read"], 1), "read_new_ms": round(ms["read_new"], 1), "stay_ms": round(ms["stay"], 1),
            "switch_ms": round(switch, 1), "switch_p10_ms": round(1e3 * percentile([a - b for a, b in zip(g["switch"], g["stay"])], 10), 1),
            "read_cpu_ms": round(ms["read_cpu"], 1), "switch_cpu_ms": round(ms["switch_cpu"], 1),
            "bar_ms": round(bar, 1), "of_bar": round(switch / bar, 2)}


def main():
    cache = Path(model_path()).parent
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--files", nargs=2, default=[model_path(), os.environ.get("VRAMD_TEST_GEMMA", cache / "gemma-3-270m.Q4_K_M.gguf")])
    a = ap.parse_args()
    files = dict(zip("ab", a.files))
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(f"{folder}/vramd.conf", files)
        n = table_of(config)
        budget = n["front end, vocabularies"] + max(n[x] for x in files)
        assert n["a"] + n["b"] + n["front end, vocabularies"] > budget
        write_config(config, files, f"[memory]\nmemory = {budget}\n")
        s = Server("vramd", [BUILD / "vramd", "serve", "--config", config, "--host", "127.0.0.1", "--port", "PORT",
                             "--threads", THREADS], "/ready")
        try:
            got = measure(s, files, a.rounds)
            with urllib.request.urlopen(f"http://127.0.0.1:{s.port}/v1/memory") as r:
                peak = json.load(r)["peak_bytes"]
        finally:
            s.stop()
    rows = [row_of(name, files[name], g) for name, g in got.items()]
    for r in rows:
        print(r)
    assert peak <= budget
    save("models", rows, budget_bytes=budget, peak_bytes=peak)


if __name__ == "__main__":
    main()
