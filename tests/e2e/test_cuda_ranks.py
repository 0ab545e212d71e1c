"""Ranks on devices, by the engine and the stand-in for NCCL on the CPU (build/vramd-cuda-shim.so): the answers of one rank, the
plan and both ledgers of each, what is refused, and what happens when a rank ends or stands still."""

import json
import os
import re
import signal
import time

import pytest

from harness import Daemon, vramd
from test_cuda_shim import CUDA, PLUGIN, refused
from test_ranks import SOON, answers, gone, lose, ranks_of
from tiny_model import write

SIZES = ["--max-model-len", "512", "--max-num-seqs", "8", "--max-num-batched-tokens", "32", "--threads", "2", "--no-log-requests"]

pytestmark = pytest.mark.skipif(not PLUGIN, reason="make test-cuda runs these")


@pytest.fixture(autouse=True)
def four_devices(monkeypatch):
    monkeypatch.setenv("CUSHIM_DEVICES", "4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    where, made = tmp_path_factory.mktemp("ranks"), {}

    def of(name, **shape):
        key = f"{name}-{len(shape)}"
        if key not in made:
            made[key] = str(where / f"{key}.gguf")
            write(made[key], name, **{**dict(width=288, heads=9, kv_heads=3, ff=416, layers=2), **shape})
        return made[key]
    return of


def served(model, ranks, *options):
    return Daemon("--model", model, *CUDA, "--tensor-parallel-size", str(ranks), *SIZES, *options)


@pytest.mark.parametrize("name, most, flags", [("F16", 3, []), ("Q8_0", 2, ["--kv-cache-dtype", "int4"])])
def test_any_number_of_ranks_gives_the_answers_of_one(tiny, name, most, flags):
    """int4: with a tail, whose blocks go by the steps in flight: one, where a single rank has two."""
    expected = None
    for n in range(1, most + 1):
        d = served(tiny(name), n, "--batch-invariant", *flags)
        try:
            got = answers(d)
            assert len(ranks_of(d)) == n - 1
            d.wait_free()
        finally:
            d.stop()
        expected = expected or got
        assert got == expected, f"{n} ranks"


def by_class(ledger, figure):
    return {c["class"]: c[figure] for c in ledger["classes"] if c[figure]}


@pytest.mark.parametrize("n", [2, 3])
def test_plan_is_ledger_on_each_rank_and_device(tiny, n):
    flags = [*CUDA, "--tensor-parallel-size", str(n), *SIZES]
    d = served(tiny("Q8_0"), n)
    try:
        memory, metrics = d.memory(), d.http.get("/metrics").text
    finally:
        d.stop()
    plan = json.loads(vramd("plan", tiny("Q8_0"), *flags, "--json").stdout)
    assert len(memory["ranks"]) == len(plan["ranks"]) == n
    for i, (rank, planned) in enumerate(zip(memory["ranks"], plan["ranks"])):
        device = rank["device"]
        assert device["name"] == f"cuda:{i}"
        assert by_class(device, "ledger_bytes") == by_class(device, "plan_bytes") == planned["classes"]
        host = by_class(rank, "ledger_bytes")
        assert {c: host.get(c, 0) for c in ("workspace", "runtime")} == {c: planned["host"]["classes"][c] for c in ("workspace", "runtime")}
        assert "weights" not in host and "kv" not in host
        for place, ledger in (("cpu", rank), (f"cuda:{i}", device)):
            for c in ledger["classes"]:
                line = f'class="{c["class"]}",device="{place}",rank="{i}"}} {c["ledger_bytes"]}'
                assert line in metrics.replace(".0\n", "\n") or not c["plan_bytes"], line
    assert memory["device"]["classes"] == memory["ranks"][0]["device"]["classes"]
    # Rank 0 and the others: the sum of what the host holds is in one budget.
    assert plan["host"]["total_bytes"] == sum(r["host"]["total_bytes"] for r in plan["ranks"])


def test_the_plan_for_a_card_is_the_layout_s(tiny):
    """Nothing is estimated but what the driver, the libraries and NCCL take."""
    plan = json.loads(vramd("plan", tiny("F16"), "--device", "h100-80g", "--tensor-parallel-size", "2", "--json").stdout)
    kinds = {(t["class"], t["kind"]) for t in plan["terms"]}
    assert {c for c, k in kinds if k != "exact"} == {"context"}
    assert any("NCCL" in t["what"] and t["kind"] == "assumed" and t["bytes"] == 256 << 20 for t in plan["terms"])
    here = json.loads(vramd("plan", tiny("F16"), *CUDA, "--tensor-parallel-size", "2", "--json").stdout)
    for a, b in zip(plan["ranks"], here["ranks"]):
        for c in ("weights", "activations", "logits", "workspace"):
            assert a["classes"][c] == b["classes"][c], c


def test_what_cannot_be_is_refused_by_name_and_auto_takes_the_cpu(tiny, monkeypatch):
    file = ["--model", tiny("F16"), *SIZES]
    code, line = refused(*file, *CUDA, "--tensor-parallel-size", "5")
    assert code == 11 and "5 ranks take the devices 0 to 4" in line and "shows 4" in line
    code, line = refused(*file, *CUDA, "--tensor-parallel-size", "2", "--cuda-device", "3")
    assert code == 11 and "the devices 3 to 4" in line
    code, line = refused(*file, *CUDA, "--pipeline-parallel-size", "2")
    assert code == 6 and "send" in line
    by_mpi = vramd("plan", tiny("F16"), *CUDA, "--tensor-parallel-size", "2", "--distributed-executor-backend", "mpi")
    assert by_mpi.returncode == 6 and "ranks by MPI compute on the CPU" in by_mpi.stderr
    monkeypatch.setenv("CUSHIM_DEVICES", "2")
    auto = ["--backend", "auto", *CUDA[2:]]
    for flags, device, ranks in ((["--tensor-parallel-size", "2"], "cuda:0", 2), (["--tensor-parallel-size", "3"], None, 3),
                                 (["--pipeline-parallel-size", "2"], None, 2)):
        d = Daemon(*file, *auto, *flags)
        try:
            m = d.memory()
            assert (m["device"]["name"] if "device" in m else None) == device
            assert len(m["ranks"]) == ranks and ("device" in m["ranks"][1]) == (device is not None)
            assert d.say("x", max_tokens=2)
        finally:
            d.stop()


def test_ranks_take_the_devices_from_cuda_device_on(tiny):
    d = served(tiny("F16"), 2, "--cuda-device", "2")
    try:
        assert [r["device"]["name"] for r in d.memory()["ranks"]] == ["cuda:2", "cuda:3"]
        assert d.say("x", max_tokens=2)
    finally:
        d.stop()


# ---- failure ----


def test_a_killed_rank_ends_the_group(tiny):
    d = served(tiny("F16"), 3)
    lose(d, lambda ranks: os.kill(ranks[2], signal.SIGKILL), r"rank 2 has ended \(signal 9\)|rank \d of 3 did not answer")
    assert d.process.returncode == 11


def test_a_rank_that_stands_still_ends_the_group(tiny):
    d = served(tiny("F16"), 2)
    lose(d, lambda ranks: os.kill(ranks[1], signal.SIGSTOP), r"rank 1 of 2 did not answer within 5000 ms")
    assert d.process.returncode == 11


def test_a_rank_killed_while_idle_ends_the_group(tiny):
    d = served(tiny("F16"), 2)
    os.kill(ranks_of(d)[1], signal.SIGKILL)
    assert d.process.wait(SOON) == 11
    assert "rank 1 has ended (signal 9)" in d.text()


def test_the_others_end_with_rank_0(tiny):
    d = served(tiny("F16"), 3)
    others = ranks_of(d).values()
    d.process.kill()
    d.process.wait(SOON)
    assert gone(others, SOON)


def test_a_rank_that_ends_while_it_loads_ends_the_start(tiny):
    """Wherever rank 0 then is, also in a call of NCCL that never returns."""
    for delay in (0, 0.1, 0.3):
        d = Daemon("--model", tiny("F16"), *CUDA, "--tensor-parallel-size", "3", *SIZES, wait=False)
        end = time.monotonic() + SOON
        while 2 not in (others := ranks_of(d)):
            assert time.monotonic() < end and d.process.poll() is None, d.text()
        time.sleep(delay)
        os.kill(others[2], signal.SIGKILL)
        assert d.process.wait(SOON) not in (0, -signal.SIGKILL), d.text()
        assert re.search(r"a rank ended while it loaded|rank 2 has ended|another rank has given up", d.text()), d.text()
        assert gone(others.values(), SOON)


def test_a_device_that_gives_less_to_another_rank_is_told(tiny, monkeypatch):
    monkeypatch.setenv("CUSHIM_FAIL_ALLOC", "1")
    code, line = refused("--model", tiny("F16"), *SIZES, *CUDA, "--tensor-parallel-size", "2")
    assert code == 8 and "device cannot give" in line
