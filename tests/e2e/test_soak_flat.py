"""make soak-flat with fewer requests: 100,000 (SOAK_FLAT_N: another number), and that growth would be seen. A
sanitizer's own memory grows: then only the answers count."""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from harness import BINARY, ROOT, SANITIZED, Daemon
from soak_flat import (CONTROLS, KEEP, PAGE, TYPES, WARM_UP, at_rest, controls_for, grew, growth, load_with_controls, make_model, of_process,
                       options_of, soak, types_here)

N = int(os.environ.get("SOAK_FLAT_N", 5_000 if SANITIZED else 100_000))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def binary():
    build = Path(BINARY).parent
    subprocess.run(["make", "-s", f"BUILD={build}", str(build / "soak_load")], cwd=ROOT, check=True)
    return str(build / "soak_load")


def test_memory_is_flat_over_a_hundred_thousand_requests(model, binary, tmp_path):
    """Of one type of KV cache, with a disk tier and a budget that moves. make soak-flat has as many of each."""
    d = Daemon(*options_of(model, "f16", tmp_path / "kv"), env=KEEP)
    try:
        samples, most, counts = soak(d, binary, N, tmp_path / "kv")
        assert counts.pop("wrong") == 0 and counts["requests"] == N and all(counts.values()), counts
    finally:
        d.stop()
    assert SANITIZED or not grew(growth(samples)), samples


def test_every_type_of_kv_cache_serves_the_same_mix(model, binary, tmp_path):
    """Each with a disk tier and a budget that moves, as make soak-flat has them."""
    types = types_here(model)
    assert types == TYPES
    for i, t in enumerate(types):
        d = Daemon(*options_of(model, t, tmp_path / t))
        try:
            assert {name for name, _ in controls_for(d)} == {name for name, _, _ in CONTROLS}
            assert load_with_controls(d, binary, random.Random(i), N * (i + 1), N // 100)[0] == 0
            at_rest(d)
            m = d.memory()
            assert m["kv"]["disk"]["store_errors"] == m["kv"]["disk"]["load_errors"] == 0
            assert all(c["ledger_bytes"] <= c["plan_bytes"] for c in m["classes"]), m["classes"]
        finally:
            d.stop()


def test_growth_in_each_segment_would_be_seen():
    flat = [{"bytes": 1000 * PAGE, "heap": 10 * PAGE, "fds": 5, "threads": 3}] * 16
    assert not grew(growth(flat))
    for key, by in (("bytes", 8 * PAGE), ("heap", 32), ("fds", 1), ("threads", 1)):
        leak = [{**s, key: s[key] + by * i} for i, s in enumerate(flat)]
        assert grew(growth(leak)), key
    for key, by in (("bytes", 99 * PAGE), ("heap", 144)):
        assert grew(growth([{**s, key: s[key] + by * (i > WARM_UP)} for i, s in enumerate(flat)])), key
        assert not grew(growth([{**s, key: s[key] + by * (i > WARM_UP - 2)} for i, s in enumerate(flat)])), key


def test_memory_of_a_process_is_counted_to_the_page():
    code = "import mmap, sys\nm = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nprint(flush=True)\ninput()\n" \
           "m[:409600] = bytes(409600)\nprint(flush=True)\ninput()"
    p = subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    p.stdout.readline()
    before = of_process(p.pid)
    p.stdin.write("\n")
    p.stdin.flush()
    p.stdout.readline()
    after = of_process(p.pid)
    p.communicate("\n", timeout=20)
    assert 409600 <= after["bytes"] - before["bytes"] < 409600 + (2 << 20) and after["fds"] == before["fds"]


def test_the_page_has_the_stored_figures():
    page = (ROOT / "docs" / "memory.md").read_text()
    rows = json.loads((ROOT / "bench" / "results" / "memory-soak-intel-xeon-f6m167.json").read_text())["rows"]
    assert sum(r["requests"] for r in rows if r["case"] in TYPES) > 999_000
    for r in (r for r in rows if r["case"] in TYPES):
        assert not grew(r["growth"])
        assert (f"| {r['case']} | {r['requests']:,} | {r['warm']['bytes']:,} | {r['end']['bytes']:,} | {r['growth']['heap']} | "
                f"{r['disk_stores']}, {r['disk_evictions']}, {r['disk_loads']} |") in page
