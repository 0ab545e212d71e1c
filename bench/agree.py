#!/usr/bin/env python3
"""vramd bench beside guidellm, an independent client: do their figures agree?

  python3 -m venv V; V/bin/pip install guidellm
  bench/agree.py --guidellm V/bin/guidellm [--model FILE] [--rounds 5]

Both send the same load (completions, words as prompts, as many tokens in and out, no prompt twice) at the same number
of requests in flight, and their medians over the rounds are compared:
  paced     a server of this script that keeps to a timetable (TTFT 200 ms, ITL 25 ms): what differs is the clients
  vramd     the daemon, the clients one after the other, who goes first alternates. Half of the cores are the daemon's,
            the others the clients': guidellm takes so much of one that a server beside it is slower. Each client's
            figures are also divided by the daemon's own for the very same requests (TTFT and tokens/s from its log,
            the mean ITL from /metrics): the machine's noise, and how the requests happened to meet, is in both and so
            not in that; "ratio_over_server" is the quotient of the two clients' quotients

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
from datetime import datetime
from pathlib import Path
from statistics import mean, median

from bench_common import save

ROOT = Path(__file__).resolve().parents[1]
BINARY = Path(os.environ.get("BUILD", ROOT / "build")) / "vramd"
PROMPT, OUTPUT = 64, 32
TTFT_S, ITL_S = 0.200, 0.025
# A token each for most tokenizers, with the blank before it.
WORDS = ("time year people way day man thing woman life child world school state family group country hand part place "
         "case week company system program question work number night point home water room mother area money story "
         "fact month lot right study book eye job word business issue side kind head house service friend father").split()
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, CLIENT_CORES = CORES[:(len(CORES) + 1) // 2], CORES[len(CORES) // 2:]
FIGURES = ("ttft_ms", "tpot_ms", "tpot_mean_ms", "output_tokens_per_s")


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
                                         "--max-num-seqs", "16", "--threads", str(len(SERVER_CORES))], stderr=self.log,
                                        preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORES))
        while not (m := re.search(r"READY: curl (http://127\.0\.0\.1:\d+)/", Path(self.log.name).read_text())):
            assert self.process.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.05)
        self.url = m[1]

    def itl(self):
        """(sum in ms, count) of all gaps since the start."""
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        total, count = (float(re.search(rf"^vramd_inter_token_latency_seconds_{k}{{[^}}]*}} (\S+)$", text, re.M)[1])
                        for k in ("sum", "count"))
        return total * 1e3, count

    def figures(self, seen):
        """Of the requests since the last call, as the clients count; and what to give the next call."""
        n_seen, total, count = seen
        lines = re.findall(r"^(\S+)Z info POST /v1/completions 200 .*output=(\d+) .*ttft_ms=(\S+) total_ms=(\S+)",
                           Path(self.log.name).read_text(), re.M)
        rows = [(datetime.fromisoformat(t).timestamp(), int(n), float(a), float(b)) for t, n, a, b in lines[n_seen:]]
        wall = max(end for end, *_ in rows) - min(end - b / 1e3 for end, _, _, b in rows)
        now = self.itl()
        return {"ttft_ms": median(a for _, _, a, _ in rows), "tpot_mean_ms": (now[0] - total) / (now[1] - count),
                "output_tokens_per_s": sum(n for _, n, _, _ in rows) / wall, "requests": len(rows)}, (len(lines), *now)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def prompts(path, n):
    r = random.SystemRandom()
    with open(path, "w") as f:
        for _ in range(n):
            f.write(json.dumps({"prompt": " ".join(r.choices(WORDS, k=PROMPT)), "output_tokens_count": OUTPUT}) + "\n")


def run_guidellm(guidellm, url, streams, requests):
    with tempfile.TemporaryDirectory() as d:
        prompts(f"{d}/prompts.jsonl", 500)
        p = subprocess.run([
            guidellm, "run", "--backend", f"kind=openai_http,target={url},request_format=/v1/completions,http2=false",
            "--profile", f"kind=concurrent,streams={streams}", "--constraint", f"kind=max_requests,count={requests}",
            "--data", f"kind=json_file,path={d}/prompts.jsonl", "--output", f"kind=json,path={d}/out.json",
            "--disable-console"], env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        assert p.returncode == 0, p.stdout + p.stderr
        b = json.loads(Path(f"{d}/out.json").read_text())["benchmarks"][0]
    m = b["metrics"]
    assert m["request_totals"]["errored"] == 0
    rs = b["requests"]["successful"]
    tpot = [r["inter_token_latency_ms"] for r in rs]
    return {"ttft_ms": median(r["time_to_first_token_ms"] for r in rs), "tpot_ms": median(tpot),
            "tpot_mean_ms": mean(tpot), "output_tokens_per_s": m["output_tokens_per_second"]["successful"]["mean"], "requests": len(rs)}


def run_ours(url, streams, requests):
    with tempfile.NamedTemporaryFile() as f:
        subprocess.run([BINARY, "bench", "--url", url, "--concurrency", str(streams), "--requests", str(requests),
                        "--prompts", "text", "--prompt-tokens", str(PROMPT), "--output-tokens", str(OUTPUT), "--quiet",
                        "--json", f.name], check=True)
        level, = json.load(open(f.name))["levels"]
    assert level["requests"]["failed"] == 0
    return {"ttft_ms": level["ttft_ms"]["p50"], "tpot_ms": level["tpot_ms"]["p50"],
            "tpot_mean_ms": level["tpot_ms"]["mean"], "output_tokens_per_s": level["output_tokens_per_s"],
            "requests": level["requests"]["ok"]}


def alternate(a, streams, url, daemon=None):
    rounds, seen = [], (0, 0, 0)
    for i in range(a.rounds + (daemon is not None)):
        got = {}
        for who in ("guidellm", "vramd") if i % 2 else ("vramd", "guidellm"):
            got[who] = run_ours(url, streams, a.requests) if who == "vramd" else \
                run_guidellm(a.guidellm, url, streams, a.requests)
            if daemon:
                got[who]["server"], seen = daemon.figures(seen)
        print(f"  round {i}: {got}", flush=True)
        rounds.append(got)
    return rounds[daemon is not None:]  # the daemon's first round warms up


def row(name, a, streams, rounds):
    out = {"server": name, "streams": streams, "rounds": len(rounds), "requests_a_round": a.requests}
    for k in FIGURES:
        cell = {}
        for who in ("vramd", "guidellm"):
            cell[who] = round(median(r[who][k] for r in rounds), 3)
            if k in rounds[0][who].get("server", {}):
                cell[who + "_over_server"] = round(median(r[who][k] / r[who]["server"][k] for r in rounds), 4)
        for over in ("", "_over_server"):
            if "vramd" + over in cell:
                cell["ratio" + over] = round(cell["vramd" + over] / cell["guidellm" + over], 4)
        out[k] = cell
    print(out, flush=True)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--guidellm", default=os.environ.get("GUIDELLM", "guidellm"))
    ap.add_argument("--model", default=os.environ.get("VRAMD_TEST_MODEL"), help="GGUF file for the daemon")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    ap.add_argument("--requests", type=int, default=32)
    ap.add_argument("--only", choices=["paced", "vramd"])
    a = ap.parse_args()
    os.sched_setaffinity(0, CLIENT_CORES)
    rows = []
    if a.only != "vramd":
        url = Paced().url
        rows += [row("paced", a, n, alternate(a, n, url)) for n in a.streams]
    if a.only != "paced":
        for n in a.streams:
            d = Daemon(a.model)
            try:
                rows.append(row("vramd", a, n, alternate(a, n, d.url, d)))
            finally:
                d.stop()
    version = subprocess.run([a.guidellm, "--version"], capture_output=True, text=True).stdout.strip()
    save("agree", rows, prompt_tokens=PROMPT, output_tokens=OUTPUT, peer=version,
         note="medians over rounds of each client's own figures: p50 of TTFT and TPOT, mean of TPOT, output tokens/s; "
              "over_server: by the daemon's own for the same requests; ratio: vramd bench over guidellm")


if __name__ == "__main__":
    main()
