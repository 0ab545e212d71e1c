"""A daemon of its own for the tests: started on a free port, waited for, stopped, its log kept."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import openai

ROOT = Path(__file__).resolve().parents[2]
BINARY = str(Path(os.environ.get("BUILD", ROOT / "build")).resolve() / "vramd")
MODEL = os.environ.get("VRAMD_TEST_MODEL")
if not MODEL:
    sys.exit("VRAMD_TEST_MODEL must name the model file (tools/run-tests.sh sets it)")
OPTIONS = ["--max-model-len", "1024", "--max-num-seqs", "32"]
# Sanitizers keep memory of their own: what the kernel says cannot be compared then.
SANITIZED = any(mark in Path(BINARY).read_bytes() for mark in (b"__asan_init", b"__tsan_init")) \
    if Path(BINARY).exists() else False


class Daemon:
    def __init__(self, *options, wait=True, under=(), env=None, verify=True, pass_fds=(), model=MODEL, binary=BINARY):
        """model: None where the options name it, or several.
        under: words before the command, as a service manager's tool; env: more variables; verify: the
        SSL context of an HTTPS client; pass_fds: as Popen's."""
        self.verify = verify
        self.log = tempfile.NamedTemporaryFile("w+", prefix="vramd-e2e-", suffix=".log")
        # Port 0: the kernel picks one, the line at READY tells which.
        self.process = subprocess.Popen([*under, binary, "serve", *([] if "--model" in options or not model else ["--model", model]), "--port", "0", *options],
                                        stderr=self.log, env={**os.environ, **(env or {})}, pass_fds=pass_fds)
        if wait:
            self.wait_ready()

    def wait_ready(self):
        m = self.wait_log(r"READY: curl (https?)://127\.0\.0\.1:(\d+)/")
        self.port = int(m[2])
        self.url = f"{m[1]}://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=600, verify=self.verify)
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=600,
                                    http_client=httpx.Client(verify=self.verify))
        assert self.http.get("/ready").status_code == 200

    def wait_log(self, pattern, seconds=300):
        end = time.monotonic() + seconds
        while not (m := re.search(pattern, self.text(), re.M)):
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.01)
        return m

    def text(self):
        return Path(self.log.name).read_text()

    def complete(self, prompt, **more):
        body = {"model": None, "prompt": prompt, "max_tokens": 16, "temperature": 0, **more}
        return self.http.post("/v1/completions", json=body)

    def choice(self, prompt, **more):
        r = self.complete(prompt, **more)
        assert r.status_code == 200, r.text
        return r.json()["choices"][0]

    def say(self, prompt, **more):
        return self.choice(prompt, **more)["text"]

    def events(self, path, body):
        """The JSON documents of a stream, which must end as streams end."""
        r = self.http.post(path, json={**body, "stream": True})
        assert r.status_code == 200 and r.headers["content-type"].startswith("text/event-stream"), r.text
        assert r.text.endswith("data: [DONE]\n\n")
        return [json.loads(e[6:]) for e in r.text.split("\n\n") if e.startswith("data: {")]

    def tokens(self, text, **more):
        return self.http.post("/tokenize", json={"prompt": text, **more}).json()["tokens"]

    def memory(self):
        return self.http.get("/v1/memory").json()

    def wait_free(self):
        for _ in range(1200):
            kv = self.memory()["kv"]
            if kv["free"] + kv["cached"] == kv["blocks"]:
                return
            time.sleep(0.05)
        raise AssertionError(f"blocks are not free: {kv}")

    def stop(self):
        if hasattr(self, "http"):
            self.http.close()
            self.client.close()
        # A second SIGTERM would cancel what runs, and one after the loop's end would kill.
        if self.process.poll() is None and " info draining" not in self.text():
            self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(60) == 0, self.text()
        finally:
            if self.process.poll() is None:
                self.process.kill()
        text = self.text()
        self.log.close()
        return text


def refused(*options):
    """What serve says at the start that it refuses; serve --check must say the same, before it prints anything."""
    check, serve = vramd("serve", "--check", *options), vramd("serve", "--port", "0", *options)
    assert check.returncode == serve.returncode != 0 and check.stdout == "", (check, serve)
    said = [[x for x in r.stderr.splitlines() if x.startswith(("vramd serve: ", "  try: "))] for r in (check, serve)]
    assert said[0] == said[1] != [], (check.stderr, serve.stderr)
    return serve


def vramd(*args, **more):
    return subprocess.run([BINARY, *args], text=True, capture_output=True, timeout=60, **more)


def untimed(log):
    """Without the time that begins each line of the log: what two processes say may be compared."""
    return re.sub(r"^\S+Z ", "", log, flags=re.M)
