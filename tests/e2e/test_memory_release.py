"""KV cache given back to the system: under memory pressure (memory_pressure = psi), and when idle (idle_release)."""

import concurrent.futures
import os
import re
import subprocess
import sys
import time

import pytest

import test_kv_disk as kv_disk
import tiny_model
from harness import MODEL, SANITIZED, Daemon, refused
from test_memory_resize import ask, check_account, put, rss_anon

OPTIONS = ["--max-model-len", "256", "--max-num-seqs", "16", "--kv-cache-tokens", "12288", "--max-num-batched-tokens", "128"]
PSI = ["--memory-pressure", "psi"]


class Pressure:
    """The service manager's FIFO in place of the kernel's file: a byte is an event."""

    def __init__(self, folder):
        path = folder / "pressure"
        os.mkfifo(path)
        self.env = {"MEMORY_PRESSURE_WATCH": str(path)}
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def event(self):
        os.write(self.fd, b"x")


def settled(d, seconds=60):
    end = time.monotonic() + seconds
    while (m := d.memory())["resizing"]:
        assert time.monotonic() < end, m
        time.sleep(0.01)
    return check_account(d)


def wait(d, what, seconds=60):
    end = time.monotonic() + seconds
    while not what(m := d.memory()):
        assert time.monotonic() < end, m
        time.sleep(0.02)
    return settled(d)


def metric(d, name):
    return int(re.search(rf"^{re.escape(name)}.* (\d+)$", d.http.get("/metrics").text, re.M)[1])


def test_pressure_takes_cached_blocks_and_leaves_running_ones(tmp_path):
    p, d = Pressure(tmp_path), Daemon(*OPTIONS, env={})
    undisturbed = [ask(d, i, 48) for i in range(4)]
    d.stop()
    d = Daemon(*OPTIONS, *PSI, env=p.env)
    d.wait_log(r"memory pressure: watching \S*/pressure$")
    first = check_account(d)
    assert first["pressure"] == {"source": p.env["MEMORY_PRESSURE_WATCH"], "state": "calm", "events": 0, "given_back_bytes": 0}
    before, full = rss_anon(d), first["budget_bytes"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, d, i, 48) for i in range(4)]
        while d.memory()["kv"]["used"] < 4:
            time.sleep(0.005)
        for n in range(1, 5):
            p.event()
            m = wait(d, lambda m: m["pressure"]["events"] == n)
            assert m["pressure"]["state"] == "pressed" and m["budget_bytes"] < full == m["full_budget_bytes"]
            assert m["kv"]["blocks"] > m["kv"]["used"]
        assert [a.result() for a in answers] == undisturbed
    for n in range(5, 12):
        p.event()
        wait(d, lambda m: m["pressure"]["events"] == n)
    m = wait(d, lambda m: m["kv"]["used"] == 0)
    # All but what one request of the longest length needs, and a piece of the search for it.
    assert m["smallest_budget_bytes"] <= m["budget_bytes"] < m["smallest_budget_bytes"] + (4 << 20)
    given = m["pressure"]["given_back_bytes"]
    assert given == sum(c["ledger_bytes"] * s for x, s in ((first, 1), (m, -1)) for c in x["classes"] if c["class"] == "kv")
    assert SANITIZED or before - rss_anon(d) >= given - (2 << 20)
    assert metric(d, "vramd_memory_pressure_events_total{") == 11 and metric(d, "vramd_memory_pressure{") == 1
    assert metric(d, "vramd_preemptions_total{") == 0
    assert re.search(rf'^vramd_memory_given_back_bytes_total{{.*cause="pressure"}} {given}$', d.http.get("/metrics").text, re.M)
    assert f"the whole budget: {full:,} bytes, less while memory is short" in d.http.get("/v1/memory", headers={"Accept": "text/plain"}).text
    assert [ask(d, i, 48) for i in range(4)] == undisturbed  # as one after another
    log = d.stop()
    assert log.count("of KV cache were given back") >= 4 and "nothing can be given back" in log


def test_it_grows_back_when_pressure_is_gone(tmp_path):
    p = Pressure(tmp_path)
    d = Daemon(*OPTIONS, *PSI, env=p.env)
    full = d.memory()
    began = time.monotonic()
    p.event()
    low = wait(d, lambda m: m["pressure"]["events"] == 1)
    grown = wait(d, lambda m: m["budget_bytes"] > low["budget_bytes"])
    assert time.monotonic() - began >= 10  # not before: counted from before the event, so that only the server can be early
    assert grown["budget_bytes"] - low["budget_bytes"] <= max(16 << 20, (full["budget_bytes"] - low["budget_bytes"]) // 4 + 1)
    p.event()
    wait(d, lambda m: m["pressure"]["events"] == 2 and m["budget_bytes"] < grown["budget_bytes"])
    assert put(d, full["budget_bytes"]).status_code in (200, 202)  # the operator knows better
    m = settled(d)
    assert m["budget_bytes"] == full["budget_bytes"] and m["pressure"]["state"] == "calm"
    assert m["kv"]["blocks"] == full["kv"]["blocks"]
    d.stop()


SPIN = "import time\nend = time.monotonic() + 4\nwhile time.monotonic() < end: pass"


def test_a_trigger_of_the_kernel(tmp_path):
    """A real trigger: memory's is set, and since a test cannot be sure to make memory short, the processors' is waited for."""
    for path in ("/proc/pressure/memory", "/proc/pressure/cpu"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            os.write(fd, b"some 100000 2000000\0")
            os.close(fd)
        except OSError as why:
            pytest.skip(f"{path}: {why}")
    d = Daemon(*OPTIONS, *PSI)
    d.wait_log(r"memory pressure: watching \S+/memory(\.pressure)?$")
    turns = lambda: int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", open(f"/proc/{d.process.pid}/status").read(), re.M)[1])
    used = lambda: sum(map(int, open(f"/proc/{d.process.pid}/stat").read().split()[13:15])) / os.sysconf("SC_CLK_TCK")
    before, began = turns(), used()
    time.sleep(2)
    # No busy loop: one that asks again at once turns thousands of times, or never sleeps and takes both seconds.
    assert turns() - before < 200 and used() - began < 1
    d.stop()
    d = Daemon(*OPTIONS, *PSI, env={"MEMORY_PRESSURE_WATCH": "/proc/pressure/cpu"})
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(2 * os.cpu_count())]
    m = wait(d, lambda m: m["pressure"]["given_back_bytes"] > 0)
    assert m["pressure"]["events"] >= 1 and m["budget_bytes"] < m["full_budget_bytes"]
    for b in busy:
        b.wait()
    d.stop()


def test_what_psi_refuses(tmp_path, monkeypatch):
    for path, text, hint in ((tmp_path / "none", "no pressure stall information", "psi=1"), ("/dev/null", "turned it off", "MemoryPressureWatch")):
        monkeypatch.setenv("MEMORY_PRESSURE_WATCH", str(path))
        r = refused("--model", MODEL, *OPTIONS, *PSI)
        assert text in r.stderr and hint in r.stderr and "memory_pressure" in r.stderr, r.stderr
    monkeypatch.setenv("MEMORY_PRESSURE_WATCH", "/dev/full")  # what is written is refused
    assert "memory_pressure = psi: /dev/full: " in refused("--model", MODEL, *OPTIONS, *PSI).stderr


def test_an_idle_server_gives_its_cache_back_and_takes_it_again(tmp_path):
    d = Daemon(*OPTIONS, "--idle-release", "1")
    first, before = d.memory(), rss_anon(d)
    assert first["idle"] == {"after_s": 1, "released": False, "given_back_bytes": 0}
    for n in range(1, 3):
        m = wait(d, lambda m: m["idle"]["released"] and m["budget_bytes"] < m["full_budget_bytes"])
        assert m["budget_bytes"] == m["smallest_budget_bytes"]
        gone = next(c["ledger_bytes"] for c in first["classes"] if c["class"] == "kv") - next(
            c["ledger_bytes"] for c in m["classes"] if c["class"] == "kv")
        times, rest = divmod(m["idle"]["given_back_bytes"], gone)
        assert gone > 1 << 20 and rest == 0 and times >= n  # more where this client was slow between two requests
        assert SANITIZED or before - rss_anon(d) >= gone - (2 << 20)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:  # more at once than what is left holds
            assert all(pool.map(lambda i: ask(d, i, 12), range(16)))
        m = wait(d, lambda m: m["budget_bytes"] == m["full_budget_bytes"])
        assert m["kv"]["blocks"] == first["kv"]["blocks"]
        assert SANITIZED or abs(rss_anon(d) - before) < 4 << 20
    d.stop()


def test_prefixes_on_disk_outlive_idleness(tmp_path):
    model = tmp_path / "tiny.gguf"
    tiny_model.write(str(model), "F16", context=2048)
    d = kv_disk.serve(str(model), tmp_path / "kv", "--idle-release", "1")
    answers = {seed: kv_disk.ask(d, kv_disk.words(seed, 1000))[0] for seed in range(4)}
    kv_disk.wait_stored(d, 4 * 7)
    wait(d, lambda m: m["idle"]["released"] and m["budget_bytes"] == m["smallest_budget_bytes"])
    for seed, answer in answers.items():
        again, cached = kv_disk.ask(d, kv_disk.words(seed, 1000))
        assert again == answer and cached >= 896
    assert metric(d, "vramd_kv_tier_hits_total{") >= 1024  # no more than two of them are still in memory
    d.stop()


@pytest.mark.skipif(not os.environ.get("VRAMD_TEST_GEMMA"), reason="no model with windows here")
def test_windows_keep_what_is_set_aside_for_their_sequences(tmp_path):
    p, prompts = Pressure(tmp_path), ["The sea. " * 250 + str(i) for i in range(4)]
    d = Daemon("--model", os.environ["VRAMD_TEST_GEMMA"], "--max-model-len", "1024", "--max-num-seqs", "8", *PSI, env=p.env)
    undisturbed = [d.say(x, max_tokens=24) for x in prompts]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(d.say, x, max_tokens=24) for x in prompts]
        while d.memory()["kv"]["used"] < 4:
            time.sleep(0.005)
        for n in range(1, 5):
            p.event()
            wait(d, lambda m: m["pressure"]["events"] == n and not m["resizing"])
        assert [a.result() for a in answers] == undisturbed
    assert metric(d, "vramd_preemptions_total{") == 0
    d.stop()
