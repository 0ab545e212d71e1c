#!/usr/bin/env python3
"""How long GET /metrics takes while the engine is at full load: 32 streams that never pause, a scrape every
50 ms over a kept connection. The load generator and the server share the machine's cores, with equal priority; the
scraper is the instrument, and where it may (root) it goes first, so that its own wait for a core is not taken for the
server's. Beside it the same on an idle server, which shows what the machine's other work adds: where it is busy, run
this under `nice -n -15`, and the priority is in the result. The idle server's processor time for each scrape, HTTP
included, times 20 a second, as often as an endpoint picker may scrape, is the part of a core that scraping costs.
Last, what one open GET /v1/memory/stream costs an idle server.

  bench_metrics.py [--seconds 60] [--streams 32]"""

import argparse
import glob
import random
import socket
import threading

from bench_common import *

EVERY_S, PICKER_HZ = 0.05, 20


def bodies(n, tokens):
    r = random.Random(1)
    return [{"prompt": [r.randrange(1000, 40000) for _ in range(64)], "max_tokens": tokens, "temperature": 0,
             "ignore_eos": True, "stream": True} for _ in range(n)]


def go_first():
    """This thread alone; False where it is not allowed."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
    except PermissionError:
        return False
    return True


def processor_us(pid):
    return sum(int(Path(p).read_text().split()[0]) for p in glob.glob(f"/proc/{pid}/task/*/schedstat")) / 1e3


def scrape(port, seconds):
    """Milliseconds of each scrape."""
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    took, end = [], time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < end:
            t0 = time.perf_counter()
            s.sendall(request)
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(1 << 20)
            head, body = got.split(b"\r\n\r\n", 1)
            left = int(re.search(rb"Content-Length: (\d+)", head)[1]) - len(body)
            while left > 0:
                left -= len(s.recv(1 << 20))
            took.append((time.perf_counter() - t0) * 1e3)
            time.sleep(EVERY_S)
    return took


def drain(s, seconds):
    """Reads for so long; returns the bytes."""
    got, end = 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        s.settimeout(left)
        try:
            got += len(s.recv(1 << 20))
        except TimeoutError:
            pass
    return got


def stream(server, seconds):
    """Percent of a core that an idle server takes while one client reads the stream of its account."""
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(b"GET /v1/memory/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        drain(s, 2)  # the first frame has all of it, and the next the history
        before, began = processor_us(server.process.pid), time.monotonic()
        got = drain(s, seconds)
        us, took = processor_us(server.process.pid) - before, time.monotonic() - began
    return {"name": "stream, idle", "seconds": round(took, 1), "bytes": got, "percent_of_core": round(us / took / 1e4, 3)}


def row(name, took, **more):
    return {"name": name, "scrapes": len(took), "p50_ms": round(median(took), 3), "p99_ms": round(percentile(took, 99), 3),
            "max_ms": round(max(took), 3), "load_average": round(os.getloadavg()[0], 1), **more}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--seconds", type=float, default=60)
    a.add_argument("--streams", type=int, default=32)
    a = a.parse_args()
    build_load()
    s = vramd_server("--max-model-len", 1024, "--max-num-seqs", a.streams)
    try:
        scrape(s.port, 1)
        before = processor_us(s.process.pid)
        took = scrape(s.port, a.seconds / 6)
        cpu_us = (processor_us(s.process.pid) - before) / len(took)
        rows = [row("idle", took, processor_us=round(cpu_us, 1), percent_of_core=round(cpu_us * PICKER_HZ / 1e4, 2))]
        rows.append(stream(s, a.seconds / 3))
        stop, done = threading.Event(), []

        def load():
            while not stop.is_set():
                done.extend(run_load(s.port, a.streams, bodies(a.streams, 128)))

        t = threading.Thread(target=load)
        t.start()
        time.sleep(2)
        first = go_first()
        took = scrape(s.port, a.seconds)
        stop.set()
        t.join()
        rows.append(row(f"{a.streams} streams", took, answers=len(done), failed=sum(not d["ok"] for d in done),
                        scraper_first=first))
    finally:
        s.stop()
    for r in rows:
        print(r)
    print(save("metrics", rows, target="p99 <= 5 ms under load, 2 cores; 20 scrapes a second for 0.5% of a core; a stream for 0.5%", nice=os.nice(0)))


if __name__ == "__main__":
    main()
