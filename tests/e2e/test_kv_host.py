"""KV blocks in host memory (kv_host_bytes): prefixes and preempted requests come back, and no bit of an answer changes."""

import re
import time

import pytest

from harness import Daemon, vramd
from test_kv_disk import OPTIONS, ask, tiny, words  # noqa: F401
from test_load import counter, crowd


def wait_stored(d, n):
    for _ in range(200):
        if d.memory()["kv"]["host"]["chunks"] >= n:
            return
        time.sleep(0.05)
    raise AssertionError(d.memory()["kv"]["host"])


def exact(d):
    m = d.memory()
    row = next(c for c in m["classes"] if c["class"] == "workspace")
    assert row["ledger_bytes"] == row["plan_bytes"], row


@pytest.mark.parametrize("types", [[], ["--kv-cache-dtype", "int4"]])
def test_a_prefix_that_left_the_cache_comes_back_with_every_bit(tiny, types):  # noqa: F811
    plain = Daemon("--model", tiny, *OPTIONS, *types)
    expected = [ask(plain, words(i, 1000))[0] for i in range(6)]
    plain.stop()
    d = Daemon("--model", tiny, *OPTIONS, *types, "--kv-cache-tokens", "2048", "--kv-host-bytes", "64MiB")
    try:
        exact(d)
        for i in range(6):  # more than the cache has
            assert ask(d, words(i, 1000)) == (expected[i], 0)
            wait_stored(d, 7 * (i + 1))
        assert ask(d, words(0, 1000)) == (expected[0], 896)
        assert counter(d, "vramd_kv_tier_loads_total") == 7
        host = d.memory()["kv"]["host"]
        assert host["on"] and host["stores"] == 42 and 0 < host["bytes"] <= host["budget_bytes"] <= 64 << 20
        assert "kv_host_bytes: " in d.http.get("/v1/memory", headers={"Accept": "text/plain"}).text
        text = d.http.get("/metrics").text
        assert re.search(r'^vramd_kv_tier_bytes\{.*tier="host"\} ', text, re.M) and 'tier="disk"' not in text
        assert d.http.delete("/v1/cache").status_code == 200 and d.memory()["kv"]["host"]["chunks"] == 0
        assert ask(d, words(1, 1000)) == (expected[1], 0)
        exact(d)
    finally:
        d.stop()


def test_preempted_requests_find_their_blocks_again(tiny):  # noqa: F811
    plain = Daemon("--model", tiny, *OPTIONS)
    jobs = [words(10 + i, 450) for i in range(4)]
    more = dict(max_tokens=600)
    expected = [ask(plain, j, **more)[0] for j in jobs]
    plain.stop()
    d = Daemon("--model", tiny, *OPTIONS, "--kv-cache-tokens", "2048", "--kv-host-bytes", "64MiB")
    try:
        assert [a for a, _ in crowd(jobs, lambda j: ask(d, j, **more))] == expected
        assert counter(d, "vramd_preemptions_total") > 0
        assert counter(d, "vramd_kv_tier_hits_total") > 0, d.text()
    finally:
        d.stop()


def test_what_excludes_it_is_refused(tiny, tmp_path):  # noqa: F811
    def refused(*options):
        r = vramd("serve", "--check", "--model", tiny, *OPTIONS, *options)
        assert r.returncode != 0, r.stderr
        return r.stderr
    assert "exclude each other" in refused("--kv-host-bytes", "1GiB", "--kv-disk", str(tmp_path))
    assert "kv_host_bytes needs prefix_caching" in refused("--kv-host-bytes", "1GiB", "--prefix-caching=false")
    assert "kv_host_bytes is less than 128 tokens take" in refused("--kv-host-bytes", "5000")
