"""vramd eval: perplexity, and KL against a stored reference, beside an independent implementation
(tests/golden/make_eval_golden.py), and what is refused."""

import json
import math
import os
import pty
import re
import signal
import struct
import subprocess
import time

import pytest

from harness import BINARY, MODEL, ROOT, vramd
from tiny_model import write

GOLDEN = ROOT / "tests" / "golden" / "eval"
TEXT = GOLDEN / "hamlet.txt"
HEADER, RECORD = 512, 800


def run(*words, **more):
    """As long as it takes: on a machine with other work a thousand tokens may take minutes."""
    return subprocess.run([BINARY, "eval", *map(str, words)], text=True, capture_output=True, timeout=900, **more)


def result(*words, **more):
    r = run(*words, "--json", **more)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    return json.loads(r.stdout)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of 2 layers, another with other weights, and a reference of the first."""
    d = tmp_path_factory.mktemp("eval")
    a, b = d / "a.gguf", d / "b.gguf"
    write(a, "F16")
    write(b, "Q8_0")
    ref = d / "a.ref"
    r = run(a, "--file", TEXT, "--context", 128, "--tokens", 700, "--kv-cache-dtype", "f32", "--write-reference", ref)
    assert r.returncode == 0, r.stderr
    return d, a, b, ref


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real model's reference with a cache and activations of float32."""
    g = json.loads((GOLDEN / "smollm2-135m-q4_1.json").read_text())
    ref = tmp_path_factory.mktemp("eval") / "f32.ref"
    j = result(MODEL, "--file", TEXT, "--context", g["context"], "--tokens", g["tokens"], "--activation-dtype", "f32",
               "--kv-cache-dtype", "f32", "--write-reference", ref)
    return g, ref, j


def test_perplexity_is_that_of_an_independent_implementation(real):
    g, ref, j = real
    want = g["caches"]["f32"]["perplexity"]
    assert j["text"]["predicted"] == g["predicted"] and j["text"]["windows"] == 2
    assert abs(j["perplexity"]["value"] / want - 1) < 1e-3
    data = ref.read_bytes()
    assert len(data) == HEADER + RECORD * g["predicted"]
    logprobs = [struct.unpack_from("<f", data, HEADER + RECORD * i + 4)[0] for i in range(g["predicted"])]
    assert max(abs(-p - n) for p, n in zip(logprobs, g["nll_f32"])) < 2e-3  # token by token


@pytest.mark.parametrize("cache,kl,top1", [("bf16", 0.0001, 0.99), ("int8", 0.0005, 0.985), ("q8_0", 0.0008, 0.98),
                                           ("int4", 0.006, 0.95)])
def test_kl_of_a_cache_is_that_of_an_independent_implementation_and_within_its_bar(real, cache, kl, top1):
    g, ref, _ = real
    j = result(MODEL, "--file", TEXT, "--reference", ref, "--activation-dtype", "f32", "--kv-cache-dtype", cache)
    want = g["caches"][cache]
    assert j["kl"]["value"] <= kl and j["top1"]["value"] >= top1
    assert abs(j["kl"]["value"] / want["kl"] - 1) < 0.05, (j["kl"], want)
    assert abs(j["perplexity"]["value"] / want["perplexity"] - 1) < 2e-3
    assert abs(j["top1"]["value"] - want["top1"]) < 0.006
    assert j["kl"]["p50"] <= j["kl"]["p99"] <= j["kl"]["max"]


def test_a_run_compared_with_itself_differs_in_nothing(tiny):
    _, a, _, ref = tiny
    j = result(a, "--file", TEXT, "--reference", ref, "--kv-cache-dtype", "f32")
    assert j["kl"] == {"value": 0, "se": 0, "p50": 0, "p99": 0, "max": 0}
    assert j["top1"] == {"value": 1, "se": 0} and j["perplexity_ratio"] == {"value": 1, "se": 0}
    assert j["perplexity"] == j["reference"]["perplexity"] and j["weights"] == j["reference"]["weights"]
    assert j["schema"] == "vramd.eval" and j["version"] == 1


def test_batches_chunks_and_repetition_change_no_bit(tiny, tmp_path):
    d, a, _, ref = tiny
    once = result(a, "--file", TEXT, "--reference", ref)
    assert once["kl"]["value"] > 0
    for more in ([], ["--max-num-batched-tokens", 37], ["--max-num-seqs", 3], ["--max-num-seqs", 16, "--block-size", 8],
                 ["--max-num-seqs", 5, "--max-num-batched-tokens", 19]):
        assert result(a, "--file", TEXT, "--reference", ref, *more) == once, more
    again = tmp_path / "again.ref"
    result(a, "--file", TEXT, "--context", 128, "--tokens", 700, "--kv-cache-dtype", "f32", "--max-num-seqs", 4,
           "--write-reference", again)
    assert again.read_bytes() == ref.read_bytes() and os.listdir(tmp_path) == ["again.ref"]


def test_windows_cover_the_text_and_each_stands_alone(tiny):
    """The perplexity of two windows is that of both halves as texts of their own."""
    _, a, _, _ = tiny
    whole = result(a, "--file", TEXT, "--context", 64, "--tokens", 128)
    ids = json.loads(vramd("tokenize", "--json", "--no-special", str(a), input=TEXT.read_text()).stdout)[:128]
    halves = []
    for part in (ids[:64], ids[64:]):
        text = vramd("tokenize", "--decode", str(a), input=json.dumps(part)).stdout
        assert json.loads(vramd("tokenize", "--json", "--no-special", str(a), input=text).stdout) == part
        halves.append(result(a, "--context", 64, input=text)["perplexity"]["value"])
    assert whole["text"]["windows"] == 2 and whole["text"]["predicted"] == 126
    assert math.isclose(whole["perplexity"]["value"], math.sqrt(halves[0] * halves[1]), rel_tol=1e-6)


def test_any_text_is_taken_and_one_too_short_is_not(tiny):
    _, a, _, _ = tiny
    assert result(a, input="Grüße aus 東京! 🎉")["perplexity"]["se"] is None
    f = a.parent / "latin1.txt"
    f.write_bytes("Grüße aus Köln, Größe".encode("latin-1") * 20)
    assert result(a, "--file", f)["text"]["tokens"] > 50
    for text in ("", "a"):
        r = run(a, input=text)
        assert r.returncode == 2 and "none of them is predicted" in r.stderr


def test_a_reference_of_something_else_is_refused_by_name(tiny, tmp_path):
    _, a, b, ref = tiny
    other = tmp_path / "other.txt"
    other.write_text("Another text altogether. " * 300)
    for words, part in (((a, "--file", other), "another text"), ((a, "--file", TEXT, "--context", 256), "windows of 128"),
                        ((a, "--file", TEXT, "--tokens", 500), "700 tokens of this text, here are 500"),
                        ((b, "--file", TEXT), "other weights than b has: a"), ((MODEL, "--file", TEXT), "a vocabulary of")):
        r = run(*words, "--reference", ref)
        assert r.returncode == 2 and part in r.stderr and str(ref) in r.stderr, r.stderr
    j = result(b, "--file", TEXT, "--reference", ref, "--other-weights")
    assert 0 < j["kl"]["value"] < 0.1 and j["reference"]["model"] == "a" and j["model"] == "b"


def test_a_damaged_reference_is_refused(tiny, tmp_path):
    _, a, _, ref = tiny
    data, bad = ref.read_bytes(), tmp_path / "bad.ref"

    def refused(content, code, part):
        bad.write_bytes(content)
        r = run(a, "--file", TEXT, "--reference", bad)
        assert r.returncode == code and part in r.stderr and "bad.ref" in r.stderr, r.stderr
    flip = lambda at: data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]
    refused(b"", 5, "no reference")
    refused(data[:300], 5, "no reference")
    refused(b"GGUF" + data[4:], 5, "no reference")
    refused(data[:-1], 5, "bytes, its header says")
    refused(data + data[-RECORD:], 5, "bytes, its header says")
    refused(flip(8), 6, "version")
    refused(flip(60), 5, "checksum of its header")
    refused(flip(HEADER + 5 * RECORD + 77), 5, "checksum of record 5")
    first, second = data[HEADER:HEADER + RECORD], data[HEADER + RECORD:HEADER + 2 * RECORD]
    refused(data[:HEADER] + second + first + data[HEADER + 2 * RECORD:], 5, "checksum of record 0")
    r = run(a, "--file", TEXT, "--reference", tmp_path / "none")
    assert r.returncode == 3 and "No such file" in r.stderr


@pytest.mark.parametrize("words,code,part", [
    (["--context", "7"], 2, "--context"), (["--context", "x"], 2, "--context"), (["--tokens", "-5"], 2, "--tokens"),
    (["--context", "4096"], 2, "trained for 1024"), (["--reference", "a", "--write-reference", "b"], 2, "two runs"),
    (["--file", "/nowhere/text"], 3, "/nowhere/text"), (["--write-reference", "/nowhere/x"], 4, "/nowhere/x"),
    (["--temperature", "1"], 2, "temperature"), (["second.gguf"], 2, "more than one model"), (["--memory", "5MiB"], 7, "memory")])
def test_mistakes_are_named(tiny, words, code, part):
    r = run(tiny[1], *(["--file", str(TEXT)] if "--file" not in words else []), *words)
    assert r.returncode == code and part in r.stderr and r.stdout == "", r.stderr


def test_what_is_planned_is_what_is_allocated(tiny, tmp_path):
    _, a, _, ref = tiny
    seen = []
    for words in ([], ["--reference", ref], ["--write-reference", tmp_path / "x.ref"], ["--max-num-seqs", 4, "--tokens", 900]):
        r = run(a, "--file", TEXT, *words, "--log-level", "info")
        m = re.search(r"memory: ([\d,]+) bytes planned before connections, ([\d,]+) allocated", r.stderr)
        assert r.returncode == 0 and m[1] == m[2], r.stderr
        seen.append(int(m[1].replace(",", "")))
    assert seen[0] < seen[2] and len(set(seen)) == 4  # rows of logits are planned where they are kept


def test_the_commands_of_the_page_run(tiny, tmp_path):
    lines = re.findall(r"^    vramd (eval .*)$", (ROOT / "docs" / "eval.md").read_text(), re.M)
    assert len(lines) == 3
    for line in lines:
        words = line.replace("$model", str(tiny[1])).replace("$text", str(TEXT)).replace("4096", "300").split()
        r = subprocess.run([BINARY, *words], text=True, capture_output=True, cwd=tmp_path, timeout=900)
        assert r.returncode == 0 and "perplexity" in r.stdout and r.stderr == "", r.stderr
    shown = r.stdout  # of the comparison: every line that the page explains
    assert all(name in shown for name in ("perplexity, this / its", "KL(reference || this)", "same likeliest token"))


def test_progress_is_for_terminals_and_an_interrupt_leaves_nothing(tmp_path):
    ours, theirs = pty.openpty()
    p = subprocess.Popen([BINARY, "eval", MODEL, "--file", str(TEXT), "--write-reference", str(tmp_path / "x.ref")],
                         stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    end = time.monotonic() + 60
    while b"tok/s" not in shown and time.monotonic() < end:
        shown += os.read(ours, 4096)
    assert re.search(rb"\[#* *\] +\d+%  [\d,]+ of [\d,]+ tokens", shown), shown
    p.send_signal(signal.SIGINT)
    assert p.wait(60) == 2 and p.stdout.read() == b"" and os.listdir(tmp_path) == []
    os.close(ours)
