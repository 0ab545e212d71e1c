"""batching = continuous, dynamic and static: the same texts, in the order that each one means; and attention = unfused,
the same texts too."""

import threading
import time

import pytest

from harness import Daemon

WAYS = ("batching=continuous", "batching=dynamic", "batching=static", "attention=unfused")


def times(d, n=6):
    """n requests, started 30 ms apart, the first of them much longer than it takes to start all: {number: (first token, end)}."""
    out = {}

    def ask(i):
        first = None
        with d.http.stream("POST", "/v1/completions", json={
                "prompt": f"The number {i} is", "max_tokens": 8 + 900 * (i == 0), "ignore_eos": True, "stream": True,
                "temperature": 0.7, "seed": i}) as r:
            assert r.status_code == 200
            for line in r.iter_lines():
                if first is None and line.startswith("data: {"):
                    first = time.monotonic()
        out[i] = (first, time.monotonic())

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
        time.sleep(0.03)
    for t in threads:
        t.join()
    return out


@pytest.fixture(scope="module")
def said():
    return {}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_says_the_same(way, said):
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "4", f"--{way}", "--no-log-requests")
    try:
        prompts = [f"The number {i} is" for i in range(7)]
        r = d.http.post("/v1/completions", json={"prompt": prompts, "max_tokens": 12, "temperature": 0.7, "seed": 3,
                                                 "ignore_eos": True, "n": 2})
        said[way] = [c["text"] for c in r.json()["choices"]]
        assert len(said[way]) == 14 and said[way] == said[WAYS[0]]
        d.wait_free()
    finally:
        d.stop()


def test_a_static_batch_ends_before_the_next_one_starts():
    order = {}
    for way in ("continuous", "static"):
        d = Daemon("--max-model-len", "1024", "--max-num-seqs", "4", "--batching", way, "--no-log-requests")
        try:
            order[way] = times(d)
        finally:
            d.stop()
    for way, o in order.items():
        late = [i for i in range(1, 6) if o[i][0] > o[0][1]]  # their first token came after the first one's last
        assert len(late) >= 4 if way == "static" else len(late) == 0, (way, o)
