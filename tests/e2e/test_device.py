"""tools/device.sh and what it runs, as far as a machine without a GPU can show it: with programs that stand for those
of build/device, and, where tools/run-cuda-tests.sh builds them, with the benchmark and the engine on the CPU."""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from harness import BINARY, ROOT

sys.path.insert(0, str(ROOT / "tools"))
import device_daemon

PLUGIN = os.environ.get("VRAMD_TEST_CUDA_PLUGIN", "")
on_shim = pytest.mark.skipif(not PLUGIN, reason="make test-cuda runs these")
BENCH = Path(BINARY).parent / "shim" / "bench_cuda"


def device(*arguments, **env):
    return subprocess.run([ROOT / "tools" / "device.sh", *map(str, arguments)], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, **{k: str(v) for k, v in env.items()}})


def program(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o644)  # device.sh makes programs of them: a copy of the tree may have lost the bits


@pytest.fixture
def stand_ins(tmp_path):
    d = tmp_path / "device"
    d.mkdir()
    program(d, "bench_cuda", 'if [ "$1" = --info ]; then echo "a card"; exit 0; fi', "echo 'ceiling copy 3000.0 GB/s (bytes)'",
            "echo 'op gate_up        Q4_0  rows    1       12.34 us  floor      10.00 us (bytes)   81.0%'",
            "echo 'op gate_up        Q4_0  rows    8       13.34 us  floor      10.00 us (bytes)   75.0%'")
    program(d, "bench_cuda_engine", 'for a; do [ "$a" != q4_0 ] || { echo "bench_cuda_engine: memory moved"; exit 1; }; done',
            'echo "decode   bf16  batch   1 context  1024      5.000 ms"', 'echo "copy-gbs $*" | grep -o "copy-gbs 3000.0"')
    program(d, "probe_cuda", 'echo "chain empty plain 300 nodes"')
    program(d, "vramd", "echo 'vramd serve: no such device'; exit 5")
    program(d, "test_prim", '[ "$CK_FORK" = no ] || exit 1', 'echo "100%: Checks: 13, Failures: 0, Errors: 0"')
    program(d, "test_row", 'echo "50%: Checks: 2, Failures: 1, Errors: 0"',
            "for i in 1 2 3 4 5 6; do echo \"test_row.cpp:$i:F:rows:sums:0: they differ\"; done", "exit 1")
    program(d, "test_rows", '[ "$CK_FORK" != no ] || kill -SEGV $$', 'echo "test_rows.cpp:9:E:rows:norm:0: signal 11"; exit 1')
    (d / "commit").write_text("abc\n")
    return d


@pytest.mark.parametrize("arguments", [[], ["run"], ["-h"], ["build", "x"], ["first", "x", "y"]])
def test_unknown_arguments_are_answered_with_the_usage(arguments):
    r = device(*arguments)
    assert r.returncode == 2 and "tools/device.sh first [RESULTS]" in r.stdout and "set -u" not in r.stdout


def test_without_a_device_a_run_says_so(tmp_path, stand_ins):
    program(stand_ins, "bench_cuda", "echo 'no NVIDIA driver'; exit 3")
    r = device("first", tmp_path / "results", DEVICE=stand_ins)
    assert r.returncode == 3 and "no CUDA device here: no NVIDIA driver" in r.stdout
    assert device("second", tmp_path / "results", DEVICE=tmp_path / "none").returncode == 4


def test_results_of_others_stay(tmp_path, stand_ins):
    kept = tmp_path / "results" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert device("first", kept.parent, DEVICE=stand_ins).returncode == 2
    assert kept.read_text() == "mine"


def test_a_first_run_tells_what_failed_and_keeps_everything(tmp_path, stand_ins):
    out = tmp_path / "out"
    r = device("first", tmp_path / "results", DEVICE=stand_ins, OUT=out)
    assert r.returncode == 1, r.stdout
    assert sorted(p.name for p in out.iterdir()) == ["results.tgz", "table.txt"]
    table = (out / "table.txt").read_text()
    assert r.stdout.rstrip().endswith(table.rstrip())  # the conclusions are last
    rows = dict(re.findall(r"^([a-zA-Z0-9_-]+) +(ok|FAILED|skipped) ", table, re.M))
    assert rows.items() >= {"machine": "ok", "probe": "ok", "test_prim": "ok", "test_row": "FAILED", "test_rows": "FAILED",
                            "operations": "ok", "engine-bf16": "ok", "engine-q4_0": "FAILED", "daemon-F16": "FAILED",
                            "daemon-full": "FAILED"}.items()
    assert table.startswith("a card; commit abc")
    assert "gate_up        Q4_0 | 1: 12.3 us 81.0% | 8: 13.3 us 75.0%" in table
    assert "chain empty plain" in table and "decode   bf16" in table
    assert r.stdout.count("they differ") == 5 and "signal 11" in r.stdout and "memory moved" in r.stdout
    with tarfile.open(out / "results.tgz") as t:
        names = {Path(n).name for n in t.getnames()}
    assert names >= {"machine.log", "operations.log", "engine-bf16.log", "test_row.log", "daemon-F16.log", "table.txt", "stages"}
    assert "copy-gbs 3000.0" in (tmp_path / "results" / "engine-bf16.log").read_text()  # the ceiling reaches the engine


def test_time_that_is_up_skips_the_rest(tmp_path, stand_ins):
    r = device("second", tmp_path / "results", DEVICE=stand_ins, SECONDS_IN_ALL=4)
    assert r.returncode == 0 and "batches-q4_0       skipped  no time left" in r.stdout


def test_answers_are_near_until_a_near_tie():
    def answer(tokens, *probabilities):
        return list(tokens), list(probabilities)
    n = 24
    same = [answer("a" * n, *[-1.0] * n)] * 4
    assert device_daemon.nearness(same, same, 0.01).startswith("4 of 4 answers are equal, 96 log-probabilities")
    off = [answer("a" * n, *[-1.2] * n)] * 4
    with pytest.raises(device_daemon.Failed, match="0.2000 apart"):
        device_daemon.nearness(same, off, 0.1)
    parted = [answer("a" * 20 + "b" * 4, *[-1.005] * 20, *[-9.0] * 4)] + same[1:]  # what follows a near-tie is another text
    with pytest.raises(device_daemon.Failed):  # no near-tie: 8 apart
        device_daemon.nearness(same, [parted[0]] * 4, 0.01)
    parted[0] = answer("a" * 20 + "b" * 4, *[-1.005] * 21, *[-9.0] * 3)
    assert device_daemon.nearness(same, parted, 0.01).startswith("3 of 4 answers are equal, 93 ")


def test_a_daemon_that_hangs_goes_with_the_program_that_started_it(tmp_path):
    program(tmp_path, "vramd", "trap '' TERM", "echo $$", "sleep 60 & wait; wait; wait")
    (tmp_path / "vramd").chmod(0o755)
    tiny = b"llama.context_length" + bytes(8)
    (tmp_path / "tiny-F16.gguf").write_bytes(tiny)
    assert device_daemon.with_context(tmp_path / "tiny-F16.gguf", 32768) == tiny[:24] + (32768).to_bytes(4, "little")
    log = tmp_path / "serve-full.log"
    p = subprocess.Popen([sys.executable, ROOT / "tools" / "device_daemon.py", "full", tmp_path, tmp_path, "F16", "8"])
    while not (log.exists() and log.read_text().endswith("\n")):
        assert p.poll() is None
        time.sleep(0.01)
    pid = int(log.read_text())
    p.terminate()
    assert p.wait() == 1
    assert not Path(f"/proc/{pid}").exists()


# ---- on the shim

def bench_cuda(*options, **env):
    return subprocess.run([BENCH, "--small", "1", *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, **env})


def operations(text):
    return [tuple(m) for m in re.findall(r"^op (\S+) +(\S+) +rows +(\d+) ", text, re.M)]


@on_shim
def test_one_operation_can_be_measured_alone(tmp_path):
    r = bench_cuda("--only", "gate_up:32", "--json", str(tmp_path / "one.json"))
    assert operations(r.stdout) == [("gate_up", "BF16", "32"), ("gate_up", "Q4_0", "32")]
    assert [row["rows"] for row in json.loads((tmp_path / "one.json").read_text())["rows"]] == [32, 32]
    types = [("attn_decode", t, "3") for t in ("BF16", "INT8", "FP8")]
    assert operations(bench_cuda("--only", "attn_decode:3").stdout) == types
    for wrong in ("gate_up", "gate_up:", "gate_up:0", "gate_up:2x"):
        assert bench_cuda("--only", wrong).returncode == 2
    assert bench_cuda(CUSHIM_DEVICES="0").returncode == 3


@on_shim
def test_without_cublaslt_the_other_operations_are_measured():
    r = bench_cuda(CUSHIM_FAIL_ALLOC="6")  # the library's handle
    assert r.returncode == 0 and "without cuBLASLt: " in r.stdout
    got, whole = operations(r.stdout), operations(bench_cuda().stdout)
    linear = {n + m for n in ("qkv", "attn_output", "gate_up", "down", "logits") for m in ("", "_packed", "_wgmma")}
    by_gemm = [o for o in whole if o[0] in linear and int(o[2]) > {"BF16": 8, "Q4_0": 64}[o[1]]]
    assert [o for o in whole if o not in got] == by_gemm and len(by_gemm) >= 20


@on_shim
def test_the_daemon_is_compared_with_the_cpu(tmp_path):
    from tiny_model import write
    for name, to in (("vramd", BINARY), ("vramd-cuda.so", PLUGIN)):
        (tmp_path / name).symlink_to(to)
    write(tmp_path / "tiny-F16.gguf", "F16")
    line = device_daemon.compare(tmp_path, tmp_path, "F16", "0.03")
    assert re.match(r"[34] of 4 answers are equal, \d+ log-probabilities, at most 0\.0", line)
    assert '"device":{"name":"cuda:0"' in (tmp_path / "memory-F16.json").read_text()
    assert re.match(r"96 tokens; opened in .* s; plan: ", device_daemon.full(tmp_path, tmp_path, "F16", "8"))
