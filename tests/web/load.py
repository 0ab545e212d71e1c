"""Streams that keep a server busy: prompts of several lengths, some with a common beginning, one after another in each thread."""

import contextlib
import itertools
import threading

import httpx

COMMON = "You answer questions about a library. " + " ".join(f"Shelf {i} holds the books of year {1900 + i}." for i in range(40))


def prompts(longest):
    """Endless: texts of up to so many words."""
    for i in itertools.count():
        words = (60, 400, 150, 900, 30, 250, longest, 120)[i % 8]
        own = " ".join(str((i * 7919 + k * 31) % 9973) for k in range(min(words, longest) // 3))
        yield (COMMON + " " if i % 2 else "") + own


class Load:
    """n streams at a time until close(); tokens: of each answer."""

    def __init__(self, url, n, tokens=400, longest=900, headers=None):
        self.url, self.tokens, self.headers = url, tokens, headers
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.prompts = prompts(longest)
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def run(self, i):
        while not self.stopped.is_set():
            with self.lock:
                prompt = next(self.prompts)
            body = {"prompt": prompt, "max_tokens": self.tokens + 37 * (i % 5), "ignore_eos": True, "stream": True, "temperature": 0.8}
            with contextlib.suppress(httpx.HTTPError), httpx.stream("POST", self.url + "/v1/completions", json=body, timeout=300, headers=self.headers) as r:
                for _ in r.iter_lines():
                    if self.stopped.is_set():
                        break
            self.stopped.wait(0.05)

    def close(self):
        self.stopped.set()
        for t in self.threads:
            t.join(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
