#!/usr/bin/env python3
"""Time to the first token of a prefix that comes from disk (kv_disk), and of the same prefix computed: a fresh server each time,
so that memory has nothing. The answers must be equal.

    bench_kv_disk.py [--tokens 8065] [--loads 5] [--kv-dtype f16]    (BENCH_DIR: where the files lie)

Of 8,065 tokens 63 chunks are on disk; the last token is computed."""

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from bench_common import model_path, save

BUILD = Path(os.environ.get("BUILD", "build"))


class Server:
    def __init__(self, model, disk, tokens, kv_dtype):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen([BUILD / "vramd", "serve", "--model", model, "--port", "0", "--kv-disk", disk, "--max-num-seqs", "1",
                                         "--kv-cache-dtype", kv_dtype, "--max-model-len", str(tokens + 32)], stderr=self.log)
        while not (m := re.search(r"READY: curl (http://127\.0\.0\.1:\d+)/", Path(self.log.name).read_text())):
            assert self.process.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.02)
        self.url = m[1]

    def first_token(self, prompt):
        """Seconds to the first token, the answer, the cached tokens."""
        body = {"prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True, "logprobs": 1, "ignore_eos": True,
                "stream_options": {"include_usage": True}}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        begin, first, events = time.monotonic(), None, []
        for line in urllib.request.urlopen(request, timeout=3600):
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - begin
                events.append(json.loads(line[6:]))
        said = [(c["text"], c["logprobs"]["token_logprobs"]) for e in events for c in e["choices"]]
        return first, said, events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tokens", type=int, default=8065)
    p.add_argument("--loads", type=int, default=5)
    p.add_argument("--kv-dtype", default="f16")
    a = p.parse_args()
    r = random.Random(1)
    prompt = [r.randrange(100, 40000) for _ in range(a.tokens)]
    disk = tempfile.mkdtemp(prefix="vramd-bench-kv-", dir=os.environ.get("BENCH_DIR"))
    try:
        s = Server(model_path(), disk, a.tokens, a.kv_dtype)
        computed, want, cached = s.first_token(prompt)
        assert cached == 0
        s.stop()
        size = sum(f.stat().st_size for f in Path(disk).glob("*/*/*.kv"))
        loaded = []
        for _ in range(a.loads):
            s = Server(model_path(), disk, a.tokens, a.kv_dtype)
            t, said, cached = s.first_token(prompt)
            s.stop()
            assert said == want and cached >= a.tokens - 128, cached
            loaded.append(t)
    finally:
        shutil.rmtree(disk)
    row = {"kv_cache_dtype": a.kv_dtype, "prompt_tokens": a.tokens, "cached_tokens": cached, "disk_bytes": size,
           "computed_ttft_s": round(computed, 3), "loaded_ttft_s": [round(t, 4) for t in loaded],
           "speedup_median": round(computed / statistics.median(loaded), 1), "same_logprobs": True}
    print(row)
    save("kv-disk", [row])


if __name__ == "__main__":
    main()
