#!/usr/bin/env python3
"""Three daemons behind nginx and HAProxy, with the files of deploy/ as they are: one is killed at random every few
seconds, all are restarted in turn, and conversations are followed to the replica that has their prefix.

    replicas.py --proxy nginx|haproxy --model FILE [--loopback] [--seconds S] [--every S] [--rolls N] [--json FILE]

Started by tools/replicas-test.sh. Exit status 1: a request failed that must not, or prefixes were missed."""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from replicas_net import Loopback, free_port, places

ROOT = Path(__file__).resolve().parents[2]
VRAMD = str(Path(os.environ.get("BUILD", ROOT / "build")).resolve() / "vramd")
N, AT_ONCE = 3, 24
OPTIONS = ["--max-model-len", "1024", "--max-num-seqs", "16", "--kv-cache-tokens", "32768", "--threads", "1",
           "--drain-timeout", "30"]


def wait_for(what, said, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(said)
        time.sleep(0.02)


def answers(url):
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Replica:
    """A daemon that is started again and again at one address, with one log."""

    def __init__(self, place, model, log, options=()):
        self.place, self.log = place, log
        host = "127.0.0.1" if isinstance(place, Loopback) else "0.0.0.0"
        self.command = [VRAMD, "serve", "--model", model, "--host", host, "--port", str(place.port), *OPTIONS, *options]
        self.url = f"http://{place.address}:{place.port}"
        self.killed = []  # when, by time.monotonic()
        self.start()

    def start(self):
        with open(self.log, "a") as f:
            self.process = self.place.popen(self.command, stderr=f)
        wait_for(lambda: self.process.poll() is not None or answers(self.url + "/ready"), f"{self.url} is not ready")
        if self.process.poll() is not None:
            raise RuntimeError(self.text()[-2000:])

    def text(self):
        return Path(self.log).read_text()

    def kill(self):
        self.killed.append(time.monotonic())
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM, and the time until all requests have ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(90) != 0:
            raise RuntimeError(self.text()[-2000:])
        return time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Proxy:
    """nginx or HAProxy in the foreground, with the file of deploy/ and nothing of it changed but addresses."""

    def __init__(self, kind, replicas, folder, loopback, edit=lambda text: text):
        port = free_port() if loopback else 8080
        source = ROOT / "deploy" / kind / ("vramd.conf" if kind == "nginx" else "haproxy.cfg")
        text = edit(source.read_text())
        for i, r in enumerate(replicas):
            text = text.replace(f"10.0.0.{i + 1}:8000", f"{r.place.address}:{r.place.port}")
        text = text.replace("listen 8080;", f"listen {port};").replace("bind :8080", f"bind :{port}")
        self.file = Path(folder) / source.name
        self.file.write_text(text)
        if kind == "nginx":
            main = Path(folder) / "nginx.conf"
            user = "user root;" if os.geteuid() == 0 else ""
            main.write_text(f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/proxy.log;\n"
                            f"events {{ worker_connections 4096; }}\nhttp {{ access_log off;\n"
                            f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
                            f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
                            f"include {self.file}; }}\n")
            command = ["nginx", "-c", str(main), "-e", f"{folder}/proxy.log"]
        else:
            command = ["haproxy", "-db", "-f", str(self.file)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}"
        wait_for(lambda: self.process.poll() is None and answers(self.url + "/health"), f"{kind} does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait(20)


class Load:
    """Workers that send requests one after the other and keep what failed. Greedy answers must agree: a request that
    was retried elsewhere says the same."""

    def __init__(self, url, workers, seed):
        self.url, self.workers, self.random = url, workers, random.Random(seed)
        self.n, self.failed, self.first, self.stopped = {"plain": 0, "stream": 0}, [], {}, False

    def body(self, stream):
        prompt = f"Story {self.random.randrange(40)}: once upon a time"
        return {"prompt": prompt, "max_tokens": self.random.choice([16, 200, 900] if stream else [4, 16, 64]),
                "temperature": 0, "ignore_eos": True, "stream": stream}

    def same(self, body, text):
        known = self.first.setdefault((body["prompt"], body["max_tokens"]), text)
        return "" if known == text else "another answer than the first one"

    async def plain(self, http, body, headers):
        r = await http.post(self.url + "/v1/completions", json=body, headers=headers)
        if r.status_code != 200:
            return f"{r.status_code} {r.text[:200]}"
        return self.same(body, r.json()["choices"][0]["text"])

    async def streamed(self, http, body, headers):
        got = b""
        async with http.stream("POST", self.url + "/v1/completions", json=body, headers=headers) as r:
            if r.status_code != 200:
                return f"{r.status_code} {(await r.aread())[:200]}"
            async for part in r.aiter_raw():
                got += part
        if not got.endswith(b"data: [DONE]\n\n"):
            return "cut: no [DONE]"
        events = [json.loads(e[6:]) for e in got.split(b"\n\n")[:-2] if e.startswith(b"data: ")]
        errors = [e for e in events if "error" in e]
        return str(errors[0]) if errors else self.same(body, "".join(e["choices"][0]["text"] for e in events))

    async def worker(self, number, http):
        while not self.stopped:
            stream = self.random.random() < 0.5
            kind, self_id = ("stream" if stream else "plain"), f"load-{self.n['plain'] + self.n['stream']}-{number}"
            headers = {"X-Request-Id": self_id}
            if self.random.random() < 0.8:
                headers["X-Session-Id"] = f"session-{self.random.randrange(100)}"
            self.n[kind] += 1
            try:
                why = await (self.streamed if stream else self.plain)(http, self.body(stream), headers)
            except httpx.HTTPError as e:
                why = f"{type(e).__name__}: {e}"
            if why:
                self.failed.append({"kind": kind, "id": self_id, "at": time.monotonic(), "why": why})
            await asyncio.sleep(self.random.random() * 0.1)

    async def run(self, disturb):
        """Runs while disturb(), in a thread, does."""
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=200)) as http:
            tasks = [asyncio.create_task(self.worker(i, http)) for i in range(self.workers)]
            try:
                return await asyncio.to_thread(disturb)
            finally:
                self.stopped = True
                await asyncio.gather(*tasks)


def judge(load, replicas):
    """What failed: plain requests, streams cut by the kill of their replica, other streams."""
    logs = {r.url: r.text() for r in replicas}
    out = {"plain": load.n["plain"], "streams": load.n["stream"], "plain_failed": 0, "streams_cut_by_kill": 0,
           "streams_failed": 0, "examples": []}
    for f in load.failed:
        killed = [r for r in replicas if any(-0.1 < f["at"] - t < 3 for t in r.killed)]
        # Any other replica would have written the line of the request.
        logged = any(f"id={f['id']}\n" in logs[r.url] for r in replicas if r not in killed)
        by_kill = f["kind"] == "stream" and killed and not logged and not re.match(r"\d", f["why"])
        key = "plain_failed" if f["kind"] == "plain" else "streams_cut_by_kill" if by_kill else "streams_failed"
        out[key] += 1
        if key != "streams_cut_by_kill" and len(out["examples"]) < 5:
            out["examples"].append(f"{f['kind']} {f['id']}: {f['why']}")
    return out


def kill_at_random(proxy, replicas, o):
    chance, load = random.Random(o.seed), Load(proxy.url, o.workers, o.seed)

    def disturb():
        end, n = time.monotonic() + o.seconds, 0
        while time.monotonic() < end:
            victim = chance.choice(replicas)
            time.sleep(o.every * (0.5 + chance.random()) / 2)
            victim.kill()
            n += 1
            time.sleep(o.every * (0.5 + chance.random()) / 2)
            victim.start()
            time.sleep(1)  # until the proxy has seen it
        return n
    n = asyncio.run(load.run(disturb))
    return {"seconds": o.seconds, "kills": n, **judge(load, replicas)}


def roll(proxy, replicas, o):
    load = Load(proxy.url, o.workers, o.seed + 1)

    def disturb():
        drains = []
        for _ in range(o.rolls):
            for r in replicas:
                time.sleep(1)
                drains.append(round(r.stop(), 2))
                r.start()
                time.sleep(1)
        return drains
    for r in replicas:
        r.killed.clear()
    drains = asyncio.run(load.run(disturb))
    return {"restarts": len(drains), "longest_drain_s": max(drains), **judge(load, replicas)}


async def converse(url, conversations, label):
    """url: text, or a picker (test_replicas_picker.py) that gives it for a session. Four turns each, AT_ONCE of them at a time; the share of prompt tokens that were cached, as the answers report it."""
    cached = prompts = 0

    async def one(http, number):
        nonlocal cached, prompts
        text = f"{label} {number} begins. "
        for turn in range(4):
            text += f"Turn {turn} of {label} {number}: " + " ".join(f"{number}x{k}" for k in range(20 + turn)) + ". "
            session = f"{label}-{number}"
            to = url(session) if callable(url) else url
            r = await http.post(to + "/v1/completions", headers={"X-Session-Id": session},
                                json={"prompt": text, "max_tokens": 16, "temperature": 0, "ignore_eos": True})
            r.raise_for_status()
            if callable(url):
                url.done(to)
            answer = r.json()
            text += answer["choices"][0]["text"]
            prompts += answer["usage"]["prompt_tokens"]
            cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            await asyncio.sleep(0.05)
    async with httpx.AsyncClient(timeout=120) as http:
        for first in range(0, conversations, AT_ONCE):
            await asyncio.gather(*(one(http, i) for i in range(first, min(first + AT_ONCE, conversations))))
    return round(cached / prompts, 4)


ROUND_ROBIN = {"nginx": lambda text: re.sub(r"^ *hash .*\n", "", text, flags=re.M),
               "haproxy": lambda text: re.sub(r"balance hash .*", "balance roundrobin", text)}


def affinity(proxy, replicas, folder, o):
    out = {"conversations": o.conversations, "one_replica": asyncio.run(converse(replicas[0].url, o.conversations, "alone"))}
    out["by_session"] = asyncio.run(converse(proxy.url, o.conversations, "hashed"))
    proxy.close()
    other = Proxy(o.proxy, replicas, folder, o.loopback, ROUND_ROBIN[o.proxy])
    try:
        out["round_robin"] = asyncio.run(converse(other.url, o.conversations, "robin"))
    finally:
        other.close()
    return out


def measure(o, folder):
    where = places(N, o.loopback, o.delay, o.loss)
    replicas, proxy = [], None
    try:
        for i, p in enumerate(where):
            replicas.append(Replica(p, o.model, f"{folder}/replica{i + 1}.log"))
        proxy = Proxy(o.proxy, replicas, folder, o.loopback)
        row = {"proxy": o.proxy, "net": "loopback" if o.loopback else f"{o.delay} ms, {o.loss:.1%} loss each way"}
        row["kill"] = kill_at_random(proxy, replicas, o)
        row["roll"] = roll(proxy, replicas, o)
        row["affinity"] = affinity(proxy, replicas, folder, o)
        return row
    finally:
        if proxy and proxy.process.poll() is None:
            proxy.close()
        for r in replicas:
            r.close()
        for p in where:
            p.close()


def table(row):
    print(f"{'':8} {'phase':6} {'events':>6} {'plain':>7} {'failed':>6} {'streams':>7} {'cut by kill':>11} {'failed':>6}")
    for phase, events in (("kill", "kills"), ("roll", "restarts")):
        p = row[phase]
        print(f"{row['proxy']:8} {phase:6} {p[events]:6} {p['plain']:7} {p['plain_failed']:6} {p['streams']:7} "
              f"{p['streams_cut_by_kill']:11} {p['streams_failed']:6}")
        for line in p["examples"]:
            print(f"  {line}")
    a = row["affinity"]
    print(f"{row['proxy']:8} cached share of prompts: {a['by_session']:.3f} by session, {a['one_replica']:.3f} with one "
          f"replica, {a['round_robin']:.3f} round robin", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--proxy", choices=("nginx", "haproxy"), required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--loopback", action="store_true")
    p.add_argument("--delay", type=float, default=2, help="ms, each way")
    p.add_argument("--loss", type=float, default=0.005)
    p.add_argument("--seconds", type=float, default=600)
    p.add_argument("--every", type=float, default=4, help="seconds from kill to kill")
    p.add_argument("--rolls", type=int, default=3)
    p.add_argument("--conversations", type=int, default=72)
    p.add_argument("--workers", type=int, default=12)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--json")
    p.add_argument("--keep", help="folder for logs and files")
    o = p.parse_args()
    folder = o.keep or tempfile.mkdtemp(prefix="replicas-")
    Path(folder).mkdir(exist_ok=True)
    try:
        row = measure(o, folder)
    finally:
        if not o.keep:
            shutil.rmtree(folder)
    table(row)
    if o.json:
        Path(o.json).write_text(json.dumps(row) + "\n")
    bad = [row[x][y] for x in ("kill", "roll") for y in ("plain_failed", "streams_failed")]
    bad += [row["roll"]["streams_cut_by_kill"], row["affinity"]["by_session"] < 0.9 * row["affinity"]["one_replica"]]
    return 1 if any(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
