"""The n-th allocation fails, for every n: at start an error names the class of memory, or the daemon runs right;
while it serves the answer is 503 or right, and afterwards nothing is held, not even a block of the heap.

    OOM_STEP=1 make test T=oom      every n with TLS, too, where CI takes one in some (test_oom_tls.py)"""

import hashlib
import http.client
import json
import re
import signal
import ssl
import subprocess
import time

import pytest

from harness import BINARY, SANITIZED, Daemon
from oom import ALIVE, AT, Control
from published import write as publish
from test_memory import by_class
from tiny_model import write

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitizers have an allocator of their own")
OPTIONS = ["--threads", "2", "--max-num-seqs", "4", "--max-model-len", "256", "--max-connections", "16",
           "--request-memory", "4MiB"]
CLASSES = {"weights", "kv", "activations", "logits", "workspace", "tokenizer", "grammar", "scheduler", "requests", "http", "runtime",
           "loading"}
MOST = 10000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    write(path, "Q8_0", context=512)
    return path


def ask(port, method, path, body=None, context=None, key="k"):
    """Status, names of headers and text, on a connection of its own; status None: closed without an answer."""
    if context:
        c = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    else:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        c.request(method, path, body=json.dumps(body) if body is not None else None,
                  headers={"X-Api-Key": key, "Connection": "close"})
        r = c.getresponse()
        return r.status, sorted(r.headers), r.read().decode()
    except (ConnectionError, ssl.SSLError, http.client.HTTPException):
        return None, [], ""
    finally:
        c.close()


def start(control, n, *options, context=None):
    """Starts until READY, asks something, stops; exit code, log, whether the n-th allocation came."""
    control.arm(n)
    p = subprocess.Popen([BINARY, "serve", "--port", "0", *options], env=control.env(), stderr=subprocess.PIPE, text=True)
    lines = []
    for line in p.stderr:
        lines.append(line)
        if port := re.search(r"READY: curl https?://127\.0\.0\.1:(\d+)/", line):
            control.set(AT, 0)  # what comes now is no start any more
            status, _, text = ask(int(port[1]), "POST", "/v1/completions", {"prompt": [5, 6], "max_tokens": 4}, context)
            assert status == 200 and json.loads(text)["usage"]["prompt_tokens"] == 2
            p.send_signal(signal.SIGTERM)
    return p.wait(60), "".join(lines), control.disarm()[0] > 0


def key_file(path, *keys):
    path.touch(0o600)
    path.write_text("".join(f"ops-{k} {hashlib.sha256(k.encode()).hexdigest()}\n" for k in keys))
    return str(path)


def fail_at_start(numbers, *options, context=None):
    """For each n; returns how many starts were refused."""
    control, wrong, refused = Control(), [], 0
    for n in numbers:
        code, text, came = start(control, n, *options, context=context)
        if not came:
            break
        refused += code != 0
        named = re.search(r"class (\w+)", text)
        right = code == 0 and "info stopped" in text or code == 8 and named and named[1] in CLASSES
        if not right:
            wrong.append(f"{n}: exit code {code}, {text[-300:]}")
    assert not wrong, "\n".join(wrong)
    assert n < numbers[-1]
    return refused


def test_whichever_allocation_fails_at_start_an_error_names_its_class(model, tmp_path):
    keys, conf = key_file(tmp_path / "keys", "k"), tmp_path / "vramd.conf"
    conf.write_text("[scheduler]\nmax_num_seqs = 4\n")
    assert fail_at_start(range(1, MOST), "--model", model, "--api-keys-file", keys, "--config", str(conf), *OPTIONS) > 40


def test_whichever_allocation_fails_while_a_folder_is_read(model, tmp_path):
    """Codes that are stored input by input, so that all parts of the reader are in it."""
    write(str(tmp_path / "source.gguf"), "F32", context=512)
    publish(tmp_path / "source.gguf", tmp_path / "Tiny", None, "F16", shards=2, packed="gptq4z", group=32)
    assert fail_at_start(range(1, MOST), "--model", str(tmp_path / "Tiny"), *OPTIONS) > 40


SCRIPT = {
    "completion": ("POST", "/v1/completions", {"prompt": "the sea", "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                               "logprobs": 2, "n": 2, "stop": ["\u0000"]}),
    "chat": ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "the"}], "max_tokens": 8,
                                              "temperature": 0, "ignore_eos": True}),
    "stream": ("POST", "/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                           "stream": True, "stream_options": {"include_usage": True}}),
    "response": ("POST", "/v1/responses", {"input": [{"role": "user", "content": "the"}], "instructions": "sea",
                                           "max_output_tokens": 8, "temperature": 0, "ignore_eos": True}),
    "message": ("POST", "/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "the"}]}],
                                         "max_tokens": 8, "temperature": 0, "ignore_eos": True}),
    "long prompt": ("POST", "/v1/completions", {"prompt": "the sea " * 3000, "max_tokens": 1}),
    "tokenize": ("POST", "/tokenize", {"prompt": "the sea\u00e9"}),
    "detokenize": ("POST", "/detokenize", {"tokens": [5, 6, 7]}),
    "models": ("GET", "/v1/models", None),
    "metrics": ("GET", "/metrics", None),
    "memory": ("GET", "/v1/memory", None),
    "no such path": ("GET", "/nothing", None),
}


def essence(name, text):
    """What must not change from one answer to the next."""
    if name == "stream":
        docs = [json.loads(e[6:]) for e in text.split("\n\n") if e.startswith("data: {")]
        return "".join(c["text"] for d in docs for c in d["choices"]), docs[-1]["usage"], text[-14:]
    if name == "metrics":
        return sorted(set(re.findall(r"^# TYPE (\S+)", text, re.M)))
    doc = json.loads(text)
    if name == "memory":
        return [c["class"] for c in doc["classes"]], doc["kv"]["blocks"]
    if "choices" in doc:
        return doc["choices"], doc["usage"]["total_tokens"]
    return {k: v for k, v in doc.items() if name not in ("response", "message") or k in ("content", "usage", "status")}


def refusal(name, status, text):
    """A 503 with its JSON; for a stream that had begun, the same as its last word."""
    if name == "stream" and status == 200:
        return '"code":503}}\n\ndata: [DONE]' in text
    return status == 503 and json.loads(text)["error"]["type"] in (
        "unavailable_error", "overloaded_error")


def settle(d, control, blocks, context=None):
    """Waits until nothing is held: blocks of the heap as before, the cache free."""
    end = time.monotonic() + 10
    while True:
        m = json.loads(ask(d.port, "GET", "/v1/memory", context=context)[2])
        time.sleep(0 if context is None else 0.002)  # a session of TLS ends after its connection
        if m["kv"]["free"] + m["kv"]["cached"] == m["kv"]["blocks"] and not m["sequences"] and control.get(ALIVE) <= blocks:
            return m
        assert time.monotonic() < end, (m, control.get(ALIVE), blocks)


def fail_in_script(d, control, width, numbers, context=None):
    """For each request of the script and each n; returns for each how often the answer was right, a 503 or none."""
    right, counts, lost = {}, {}, 0 if context is None else 1
    for name, what in SCRIPT.items():
        status, heads, text = ask(d.port, *what, context)
        right[name] = status, heads, essence(name, text)
    for name, what in SCRIPT.items():
        counts[name] = {"right": 0, "refused": 0, "closed": 0}
        for n in numbers:
            blocks = control.get(ALIVE)
            control.arm(n, width)
            status, heads, text = ask(d.port, *what, context)
            if not control.disarm()[0]:
                break
            if status is None:
                counts[name]["closed"] += 1
            elif refusal(name, status, text):
                counts[name]["refused"] += 1
            else:
                assert (status, heads, essence(name, text)) == right[name], (name, n, text[:500])
                counts[name]["right"] += 1
            # GnuTLS 3.7.9 loses a buffer itself where the first message of a handshake finds no room in it.
            settle(d, control, blocks + lost, context)
        assert n < numbers[-1]
    return counts


@pytest.mark.parametrize("width", [1, MOST], ids=["one fails", "all fail from then on"])
def test_whichever_allocation_fails_while_it_serves_nothing_breaks_and_nothing_stays(model, width):
    control = Control()
    d = Daemon("--model", model, *OPTIONS, "--no-prefix-caching", env=control.env())
    try:
        ask(d.port, "GET", "/v1/memory")
        ready = by_class(d.memory())
        for counts in fail_in_script(d, control, width, range(1, MOST)).values():
            # What libmicrohttpd takes for a connection, before it has read a byte: there is nobody to answer.
            assert counts["closed"] <= 4 and counts["refused"] > 4, counts
        m = settle(d, control, control.get(ALIVE))
        assert by_class(m)["requests"] == ready["requests"] and m["requests"]["used"] <= 65536
        assert {k: v for k, v in by_class(m).items() if k != "http"} == {k: v for k, v in ready.items() if k != "http"}
    finally:
        d.stop()
