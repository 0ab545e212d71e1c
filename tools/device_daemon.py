#!/usr/bin/env python3
"""The daemon on a device, for tools/device.sh; Python's own library alone. Logs go to the folder RESULTS.

    device_daemon.py compare FOLDER RESULTS TYPE TOLERANCE   FOLDER/tiny-TYPE.gguf on the CPU and on the device: the
                                                             same answers, chat, a stream, a client that leaves
    device_daemon.py full FOLDER RESULTS TYPE SEQUENCES      served without --memory, with so many sequences of 32768 tokens:
                                                             2560 of them take all that a device has free
    device_daemon.py load FOLDER RESULTS FILE STREAMS        FILE served, bench/load.c against it: prompts of 512 tokens,
                                                             128 out, at each number of streams (1,16,64)

FOLDER (build/device) holds vramd, its plugin and load. Exit code 1 where a check fails; the last line says which, or what
was measured."""

import http.client
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPTS = ["the garden of", "int main(void) {", "winter is", "x = 1"]
TOKENS = 24
SIZES = ["--max-model-len", "512", "--max-num-seqs", "8", "--max-num-batched-tokens", "64"]
READY = re.compile(rb"READY: curl http://127\.0\.0\.1:(\d+)")


class Failed(Exception):
    pass


class Daemon:
    """One that runs on a free port while the block does; afterwards it must end well by SIGTERM. Where the block
    fails, or this program is stopped, it is killed at once: it must not hold the device's memory for longer."""

    def __init__(self, folder, log, *options, wait_s=25):
        self.command = [str(folder / "vramd"), "serve", "--port", "0", "--no-log-requests", *options]
        self.log, self.wait_s = log, wait_s

    def __enter__(self):
        with open(self.log, "wb") as f:
            self.process = subprocess.Popen(self.command, stdout=f, stderr=f)
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait_ready(self):
        end = time.monotonic() + self.wait_s
        while time.monotonic() < end and self.process.poll() is None:
            found = READY.search(self.log.read_bytes())
            if found:
                self.port = int(found[1])
                return
            time.sleep(0.05)
        raise Failed("the daemon does not start:\n" + self.tail())

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            code = "no end in 10 s"
        if code != 0:
            raise Failed(f"the daemon ended with {code}:\n" + self.tail())

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def request(self, method, path, body=None, accept="application/json"):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json", "Accept": accept}
        c.request(method, path, None if body is None else json.dumps(body), headers)
        r = c.getresponse()
        text = r.read().decode(errors="replace")
        c.close()
        if r.status != 200:
            raise Failed(f"{method} {path}: {r.status} {text[:300]}")
        return text

    def complete(self, prompt, n=TOKENS, **more):
        body = {"prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True, **more}
        return self.request("POST", "/v1/completions", body)

    def answers(self):
        """Of each prompt: its tokens, and their log-probabilities."""
        parts = [json.loads(self.complete(p, logprobs=1))["choices"][0]["logprobs"] for p in PROMPTS]
        return [(p["tokens"], p["token_logprobs"]) for p in parts]


def cuda(folder, *options):
    return ["--backend", "cuda", "--cuda-plugin", str(folder / "vramd-cuda.so"), *options]


def nearness(cpu, device, most):
    """Equal tokens must have log-probabilities within `most`; after a near-tie two texts part."""
    same = compared = 0
    worst = 0.0
    for (a, x), (b, y) in zip(cpu, device):
        same += a == b
        for token, other, p, q in zip(a, b, x, y):
            if token != other and abs(p - q) > most:
                break
            compared, worst = compared + 1, max(worst, abs(p - q))
            if token != other:
                break
    line = f"{same} of {len(cpu)} answers are equal, {compared} log-probabilities, at most {worst:.4f} apart"
    if same == 0 or compared < len(PROMPTS) * TOKENS // 2 or not worst <= most:
        raise Failed(f"{line} (allowed {most})")
    return line


def serve_well(d, results, label):
    chat = {"messages": [{"role": "user", "content": "a colour"}], "max_tokens": 8, "temperature": 0}
    if '"role":"assistant"' not in d.request("POST", "/v1/chat/completions", chat):
        raise Failed("chat without an answer")
    if "data: [DONE]" not in d.complete("count", 16, stream=True):
        raise Failed("a stream without an end")
    gone = http.client.HTTPConnection("127.0.0.1", d.port, timeout=30)
    gone.request("POST", "/v1/completions", json.dumps({"prompt": "gone", "max_tokens": 400, "ignore_eos": True}))
    time.sleep(0.2)
    gone.close()
    metrics = d.request("GET", "/metrics", accept="text/plain")
    (results / f"metrics-{label}").write_text(metrics)
    if "\nvramd_memory_bytes" not in metrics:
        raise Failed("no memory in /metrics")
    memory = d.request("GET", "/v1/memory")
    (results / f"memory-{label}.json").write_text(memory)
    (results / f"memory-{label}.txt").write_text(d.request("GET", "/v1/memory", accept="text/plain"))
    if '"device":{"name":"cuda:0"' not in memory:
        raise Failed("no device in /v1/memory")


def compare(folder, results, name, tolerance):
    model = ["--model", str(folder / f"tiny-{name}.gguf"), *SIZES]
    exact = ["--backend", "cpu", "--activation-dtype", "f32", "--kv-cache-dtype", "f32"]
    with Daemon(folder, results / f"serve-cpu-{name}.log", *model, *exact) as d:
        cpu = d.answers()
    with Daemon(folder, results / f"serve-cuda-{name}.log", *model, *cuda(folder, "--memory", "2GiB")) as d:
        device = d.answers()
        serve_well(d, results, name)
    (results / f"answers-{name}.json").write_text(json.dumps({"cpu": cpu, "device": device}))
    return nearness(cpu, device, float(tolerance))


def with_context(file, tokens):
    """The bytes of a model that says it was trained for so many tokens."""
    data, key = bytearray(file.read_bytes()), b"llama.context_length"
    at = data.index(key) + len(key) + 4  # behind the type of the value
    data[at:at + 4] = tokens.to_bytes(4, "little")
    return data


def full(folder, results, name, sequences):
    with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
        f.write(with_context(folder / f"tiny-{name}.gguf", 32768))
        f.flush()
        sizes = ["--max-model-len", "32768", "--max-num-seqs", sequences, "--max-num-batched-tokens", sequences]
        started = time.monotonic()
        with Daemon(folder, results / "serve-full.log", "--model", f.name, *sizes, *cuda(folder), wait_s=45) as d:
            opened = time.monotonic() - started
            n = sum(len(tokens) for tokens, _ in d.answers())
            serve_well(d, results, "full")
    plan = re.search(r"plan: .*", (results / "serve-full.log").read_text())
    return f"{n} tokens; opened in {opened:.1f} s; {plan[0] if plan else ''}"


def load(folder, results, file, streams):
    """Memory is what the device has: 64 sequences of the model's context."""
    rows, started, r = [], time.monotonic(), random.Random(1)
    with Daemon(folder, results / "serve-load.log", "--model", file, "--max-num-seqs", "64", "--max-num-batched-tokens",
                "2048", *cuda(folder), wait_s=60) as d:
        rows.append(f"ready after {time.monotonic() - started:.1f} s")
        for n in map(int, streams.split(",")):
            bodies = [{"prompt": [r.randrange(256, 100000) for _ in range(512)], "max_tokens": 128, "temperature": 0,
                       "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
                      for _ in range(max(4, 2 * n))]
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
                f.writelines(json.dumps(b) + "\n" for b in bodies)
                f.flush()
                text = subprocess.run([folder / "load", str(d.port), str(n), f.name], text=True, stdout=subprocess.PIPE).stdout
            (results / f"load-{n}.jsonl").write_text(text)
            got = [json.loads(line) for line in text.splitlines()]
            good = [g for g in got if g["ok"] and g["tokens"] == 128]
            if len(good) < len(bodies):
                raise Failed(f"{n} streams: {len(good)} of {len(bodies)} answers are whole")
            wall = max(g["start_us"] + g["total_us"] for g in good) / 1e6
            ttft = statistics.median(g["ttft_us"] for g in good) / 1e3
            gap = statistics.median(x for g in good for x in g["gaps_us"]) / 1e3
            rows.append(f"{n:3} streams: {128 * len(good) / wall:8.1f} tokens/s, TTFT {ttft:.1f} ms, ITL {gap:.2f} ms (medians)")
    return "\n".join(f"load     {Path(file).stem} {row}" for row in rows)


def main():
    commands = {"compare": compare, "full": full, "load": load}
    if len(sys.argv) < 5 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        print(commands[sys.argv[1]](Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve(), *sys.argv[4:]))
    except (Failed, OSError, ValueError, KeyError) as e:
        print(f"FAILED: {e}")
        sys.exit(1)


if __name__ == "__main__":
    main()
