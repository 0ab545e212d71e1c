#!/usr/bin/env python3
"""vramd bench beside guidellm, an independent client: do their figures agree?

  python3 -m venv V; V/bin/pip install guidellm
  bench/agree.py --guidellm V/bin/guidellm [--model FILE] [--rounds 5]

Both send the same load (completions, words as prompts, as many tokens in and out, no prompt twice) at the same number
of requests in flight, and their medians over the rounds are compared:
  paced     a server of this script that keeps to a timetable (TTFT 200 ms, ITL 25 ms): what differs is the clients
  vramd     the daemon, the clients one after the other, who goes first alternates: noise of the machine is in it
  together  the daemon, both clients at once, one request in flight each: the same run for both, of which guidellm's
            requests that started while ours ran count

guidellm's inter_token_latency_ms is the mean gap of a request: tpot_ms here. Writes bench/results/agree-CPU.json."""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from statistics import median

from bench_common import save

ROOT = Path(__file__).resolve().parents[1]
BINARY = Path(os.environ.get("BUILD", ROOT / "build")) / "vramd"
PROMPT, OUTPUT = 64, 32
TTFT_S, ITL_S = 0.200, 0.025
# A token each for most tokenizers, with the blank before it.
WORDS = ("time year people way day man thing woman life child world school state family group country hand part place "
         "case week company system program question work number night point home water room mother area money story "
         "fact month lot right study book eye job word business issue side kind head house service friend father").split()
FIGURES = {"ttft_ms": "time_to_first_token_ms", "tpot_ms": "inter_token_latency_ms"}


class Paced:
    """An event stream whose pieces leave at fixed times after the request came."""

    def __init__(self):
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.main(started)), daemon=True).start()
        started.wait()

    async def main(self, started):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await server.serve_forever()

    async def connection(self, r, w):
        while head := await self.head(r):
            came = time.monotonic()
            length = re.search(rb"content-length: *(\d+)", head, re.I)
            body = await r.readexactly(int(length[1])) if length else b""
            if b"/completions" in head.split(b"\r\n")[0]:
                await self.stream(w, came, json.loads(body))
            else:
                text = b'{"object":"list","data":[{"id":"paced","object":"model"}]}'
                ok = b"/tokenize" not in head.split(b"\r\n")[0]
                w.write(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                        % (b"200 OK" if ok else b"404 Not Found", len(text), text))
                await w.drain()
        w.close()

    async def head(self, r):
        try:
            return await r.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def stream(self, w, came, body):
        def event(text):
            data = f"data: {text}\n\n".encode()
            w.write(b"%x\r\n%s\r\n" % (len(data), data))

        w.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        n = body["max_tokens"]
        for i in range(n):
            await asyncio.sleep(came + TTFT_S + i * ITL_S - time.monotonic())
            event('{"id":"x","object":"text_completion","choices":[{"index":0,"text":" a","finish_reason":null}]}')
            await w.drain()
        event(json.dumps({"id": "x", "object": "text_completion", "choices": [], "usage": {
            "prompt_tokens": len(body["prompt"].split()), "completion_tokens": n}}))
        event("[DONE]")
        w.write(b"0\r\n\r\n")
        await w.drain()


class Daemon:
    def __init__(self, model):
        self.log = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen([BINARY, "serve", "--model", model, "--port", "0", "--max-model-len", "512",
                                         "--max-num-seqs", "16"], stderr=self.log)
        while not (m := re.search(r"READY: curl (http://127\.0\.0\.1:\d+)/", Path(self.log.name).read_text())):
            assert self.process.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.05)
        self.url = m[1]

    def running(self):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        return float(re.search(r"^vramd_requests_running{[^}]*} (\S+)$", text, re.M)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()


def prompts(path, n):
    r = random.SystemRandom()
    with open(path, "w") as f:
        for _ in range(n):
            f.write(json.dumps({"prompt": " ".join(r.choices(WORDS, k=PROMPT)), "output_tokens_count": OUTPUT}) + "\n")


def start_guidellm(a, url, streams, limit):
    d = tempfile.mkdtemp(prefix="agree-")
    prompts(f"{d}/prompts.jsonl", 500)
    key, n = limit
    constraint = f"kind=max_requests,count={n}" if key == "requests" else f"kind=max_duration,seconds={n}"
    p = subprocess.Popen([a.guidellm, "run", "--backend", f"kind=openai_http,target={url},request_format=/v1/completions,"
                          "http2=false", "--profile", f"kind=concurrent,streams={streams}", "--constraint", constraint,
                          "--data", f"kind=json_file,path={d}/prompts.jsonl", "--output", f"kind=json,path={d}/out.json",
                          "--disable-console"], env=os.environ | {"HF_HUB_OFFLINE": "1"},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return p, f"{d}/out.json"


def end_guidellm(started, window=None):
    """window: (from, to), by the clock on the wall: of the requests that started within."""
    p, out = started
    text, _ = p.communicate()
    assert p.returncode == 0, text
    b = json.load(open(out))["benchmarks"][0]
    m = b["metrics"]
    assert m["request_totals"]["errored"] == 0
    if window:
        rs = [r for r in b["requests"]["successful"] if window[0] <= r["request_start_time"] <= window[1]]
        row = {k: median(r[theirs] for r in rs) for k, theirs in FIGURES.items()}
        wall = max(r["request_end_time"] for r in rs) - min(r["request_start_time"] for r in rs)
        return row | {"output_tokens_per_s": sum(r["output_tokens"] for r in rs) / wall, "requests": len(rs)}
    row = {k: m[theirs]["successful"]["median"] for k, theirs in FIGURES.items()}
    row["output_tokens_per_s"] = m["output_tokens_per_second"]["successful"]["mean"]
    return row | {"requests": m["request_totals"]["successful"]}


def run_ours(url, streams, limit):
    with tempfile.NamedTemporaryFile() as f:
        subprocess.run([BINARY, "bench", "--url", url, "--concurrency", str(streams), f"--{limit[0]}", str(limit[1]),
                        "--prompts", "text", "--prompt-tokens", str(PROMPT), "--output-tokens", str(OUTPUT), "--quiet",
                        "--json", f.name], check=True)
        level, = json.load(open(f.name))["levels"]
    assert level["requests"]["failed"] == 0
    row = {k: level[k]["p50"] for k in FIGURES}
    return row | {"output_tokens_per_s": level["output_tokens_per_s"], "requests": level["requests"]["ok"]}


def alternate(a, url, streams, limit):
    rounds = []
    for i in range(a.rounds):
        got = {}
        for who in ("guidellm", "vramd") if i % 2 else ("vramd", "guidellm"):
            got[who] = run_ours(url, streams, limit) if who == "vramd" else \
                end_guidellm(start_guidellm(a, url, streams, limit))
        rounds.append(got)
        print(f"  round {i}: {got}", flush=True)
    return rounds


def together(a, daemon):
    """guidellm takes seconds to start: ours begins when its first requests run, and ends before it."""
    rounds = []
    for i in range(a.rounds):
        theirs = start_guidellm(a, daemon.url, 1, ("duration", 17))
        while daemon.running() == 0 and theirs[0].poll() is None:
            time.sleep(0.05)
        begin = time.time()
        ours = run_ours(daemon.url, 1, ("duration", 13))
        rounds.append({"vramd": ours, "guidellm": end_guidellm(theirs, (begin, begin + 13))})
        print(f"  round {i}: {rounds[-1]}", flush=True)
    return rounds


def row(name, streams, rounds):
    out = {"server": name, "streams": streams, "rounds": len(rounds)}
    for k in (*FIGURES, "output_tokens_per_s"):
        mine, theirs = (median(r[who][k] for r in rounds) for who in ("vramd", "guidellm"))
        out[k] = {"vramd_bench": round(mine, 3), "guidellm": round(theirs, 3), "ratio": round(mine / theirs, 4)}
    out["requests"] = {who: sum(r[who]["requests"] for r in rounds) for who in ("vramd", "guidellm")}
    print(out, flush=True)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--guidellm", default=os.environ.get("GUIDELLM", "guidellm"))
    ap.add_argument("--model", default=os.environ.get("VRAMD_TEST_MODEL"), help="GGUF file for the daemon")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--streams", type=int, default=4)
    ap.add_argument("--requests", type=int, default=48)
    ap.add_argument("--only", choices=["paced", "vramd", "together"])
    a = ap.parse_args()
    rows = []
    if a.only in (None, "paced"):
        rows.append(row("paced", a.streams, alternate(a, Paced().url, a.streams, ("requests", a.requests))))
    for name in ("vramd", "together"):
        if a.only not in (None, name):
            continue
        d = Daemon(a.model)
        try:
            run_ours(d.url, a.streams, ("requests", 8))  # warm
            rounds = alternate(a, d.url, a.streams, ("requests", a.requests)) if name == "vramd" else \
                together(a, d)
            rows.append(row(name, a.streams if name == "vramd" else 2, rounds))
        finally:
            d.stop()
    version = subprocess.run([a.guidellm, "--version"], capture_output=True, text=True).stdout.strip()
    save("agree", rows, prompt_tokens=PROMPT, output_tokens=OUTPUT, peer=version,
         note="medians over rounds of each client's own figures: p50 of TTFT and TPOT, output tokens/s; ratio: vramd "
              "bench over guidellm")


if __name__ == "__main__":
    main()
