"""A budget that moves while the server serves: PUT /v1/memory, SIGHUP, who may, what is refused, and that no answer changes."""

import concurrent.futures
import re
import signal
import subprocess
import time

import pytest

from harness import MODEL, SANITIZED, Daemon, vramd

OPTIONS = ["--max-model-len", "256", "--max-num-seqs", "32", "--max-num-batched-tokens", "128"]
STREAMS = 32


def put(d, budget, **more):
    return d.http.put("/v1/memory", json={"budget_bytes": budget}, **more)


def check_account(d):
    """Plan and ledger of the KV cache are equal, the budget holds the plan, and the kernel agrees."""
    m = d.memory()
    kv = next(c for c in m["classes"] if c["class"] == "kv")
    assert kv["plan_bytes"] == kv["ledger_bytes"], kv
    assert m["plan_bytes"] <= m["budget_bytes"], m
    if not SANITIZED:
        assert m["unaccounted_bytes"] <= (4 << 20) + m["ledger_bytes"] // 500, m
    return m


def rss_anon(d):
    for line in open(f"/proc/{d.process.pid}/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def ask(d, i, n=32):
    r = d.complete(f"{i} is a number. Story {i}: once upon a time there was", max_tokens=n, seed=i, temperature=0.7 if i % 2 else 0)
    assert r.status_code == 200, r.text
    return r.json()["choices"][0]["text"]


def ask_all(d, n=32):
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        return list(pool.map(lambda i: ask(d, i, n), range(STREAMS)))


@pytest.fixture(scope="module")
def budgets():
    """The smallest budget, and the one that holds what 32 streams of these tests need."""
    d = Daemon(*OPTIONS)
    m = d.memory()
    small = m["smallest_budget_bytes"]
    comfortable = m["budget_bytes"] - m["kv"]["bytes_per_token"] * (m["kv"]["blocks"] * 16 - STREAMS * 96)
    d.stop()
    assert small < comfortable < m["budget_bytes"]
    return small, comfortable


@pytest.fixture(scope="module")
def undisturbed():
    d = Daemon(*OPTIONS)
    texts = ask_all(d)
    d.stop()
    return texts


def test_no_answer_changes_while_the_budget_halves_and_grows_back(budgets, undisturbed):
    small, comfortable = budgets
    large = comfortable + comfortable // 2
    d = Daemon(*OPTIONS, "--memory", str(large))
    check_account(d)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = rss_anon(d)
        answers = pool.submit(ask_all, d)
        while d.memory()["kv"]["used"] < STREAMS:
            time.sleep(0.01)
        r = put(d, comfortable)
        assert r.status_code in (200, 202), r.text
        while d.memory()["target_bytes"] != d.memory()["budget_bytes"]:
            check_account(d)
        m = check_account(d)
        assert m["budget_bytes"] == comfortable
        assert put(d, small).status_code in (200, 202)  # fewer blocks than the streams hold: juniors are preempted
        while d.memory()["target_bytes"] != d.memory()["budget_bytes"]:
            check_account(d)
        assert rss_anon(d) < before - (large - small) // 2
        assert put(d, large).status_code in (200, 202)
        got = answers.result()
    while d.memory()["target_bytes"] != d.memory()["budget_bytes"]:
        time.sleep(0.01)
    assert got == undisturbed
    m = check_account(d)
    assert m["budget_bytes"] == m["target_bytes"] == large
    metrics = d.http.get("/metrics").text
    assert re.search(r"^vramd_memory_resizes_total\S* 3$", metrics, re.M)
    assert re.search(rf"^vramd_memory_target_bytes\S* {large}$", metrics, re.M)
    assert "invariant" not in d.stop()


def kv_bytes(d):
    return next(c["ledger_bytes"] for c in d.memory()["classes"] if c["class"] == "kv")


def test_pages_are_the_kernels_when_the_answer_comes(budgets):
    small, comfortable = budgets
    d = Daemon(*OPTIONS, "--memory", str(comfortable * 3 // 2))
    d.say("Once upon a time", max_tokens=8)
    before, held = rss_anon(d), kv_bytes(d)
    r = put(d, comfortable)
    assert r.status_code == 200 and r.json()["done"], r.text  # 202 where it is not done at once
    gone = held - kv_bytes(d)
    assert gone > 1 << 20
    assert SANITIZED or before - rss_anon(d) >= gone - (2 << 20)
    d.stop()


def test_many_random_sizes_under_load(budgets, undisturbed):
    small, comfortable = budgets
    d = Daemon(*OPTIONS, "--memory", str(comfortable * 3 // 2))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask_all, d)
        n = 0
        while not answers.done():
            r = put(d, small + (comfortable * 3 // 2 - small) * (n * 7919 % 101) // 100)
            assert r.status_code in (200, 202), r.text
            check_account(d)
            n += 1
        assert answers.result() == undisturbed and n > 3
    d.stop()


def test_what_is_refused(budgets):
    small, comfortable = budgets
    d = Daemon(*OPTIONS, "--memory", str(comfortable))
    m = d.memory()
    small = m["smallest_budget_bytes"]  # its lists are for fewer blocks than those of the fixture's daemon
    assert m["memory_max_bytes"] == comfortable
    for body, status in [({}, 400), ({"budget_bytes": "6GiB"}, 400), ({"budget_bytes": 0}, 400), ({"budget_bytes": -1}, 400),
                         ({"budget_bytes": comfortable + 1}, 400), ({"budget_bytes": small - 1}, 409)]:
        r = d.http.put("/v1/memory", json=body)
        assert r.status_code == status, (body, r.text)
        assert r.json()["error"]["param"] == "budget_bytes", r.text
    assert f"{small:,}" in r.json()["error"]["message"] or str(small) in r.json()["error"]["message"].replace(",", "")
    for header in ({"Origin": "http://127.0.0.1"}, {"X-Forwarded-For": "10.0.0.1"}):
        assert put(d, small, headers=header).status_code == 403
    assert d.http.delete("/v1/memory").status_code == 405
    assert put(d, small).json() | {"ledger_bytes": 0} == {"budget_bytes": small, "target_bytes": small, "done": True,
                                                          "plan_bytes": d.memory()["plan_bytes"], "ledger_bytes": 0}
    assert d.say("Once", max_tokens=250)  # the longest request still fits
    d.stop()


def test_only_an_admin_key_may(tmp_path):
    keys = tmp_path / "keys"
    user, boss = vramd("key", "alice"), vramd("key", "boss", "admin")
    keys.write_text(user.stdout + boss.stdout)
    keys.chmod(0o600)
    key = {who.args[2]: next(w for w in who.stderr.split() if w.startswith("vk-")) for who in (user, boss)}
    d = Daemon(*OPTIONS, "--api-keys-file", str(keys))
    bearer = {name: {"Authorization": f"Bearer {k}"} for name, k in key.items()}
    small = d.http.get("/v1/memory", headers=bearer["alice"]).json()["smallest_budget_bytes"]
    for header, status in [({}, 401), (bearer["alice"], 403), (bearer["boss"], 200)]:
        assert put(d, small, headers=header).status_code == status
    d.stop()


def test_memory_max_lets_it_grow_and_sighup_does_the_same(tmp_path, budgets):
    small, comfortable = budgets
    conf = tmp_path / "vramd.conf"
    conf.write_text(f"[memory]\nmemory = {small}\nmemory_max = {comfortable}\n")
    d = Daemon(*OPTIONS, "--config", str(conf))
    m = check_account(d)
    few = m["kv"]["blocks"]
    assert m["memory_max_bytes"] == comfortable
    assert put(d, comfortable).status_code == 200
    m = check_account(d)
    assert m["kv"]["blocks"] > few
    assert len(set(ask_all(d, 8))) > 1
    conf.write_text(f"[memory]\nmemory = {small + (comfortable - small) // 2}\nmemory_max = {comfortable}\n")
    d.process.send_signal(signal.SIGHUP)
    d.wait_log(r"the new budget is in force after [0-9.]+ s\n(.*\n)*.*the new budget is in force")
    assert check_account(d)["budget_bytes"] == small + (comfortable - small) // 2
    conf.write_text(f"[memory]\nmemory = {small // 2}\nmemory_max = {comfortable}\n")
    d.process.send_signal(signal.SIGHUP)
    d.wait_log(r"reload: nothing is taken over")
    assert check_account(d)["budget_bytes"] == small + (comfortable - small) // 2
    d.stop()


def test_growth_that_the_system_refuses_keeps_what_there_is(budgets):
    small, comfortable = budgets
    d = Daemon(*OPTIONS, "--memory", str(small), "--memory-max", str(comfortable * 2))
    held = next(int(x.split()[1]) * 1024 for x in open(f"/proc/{d.process.pid}/status") if x.startswith("VmData:"))
    subprocess.run(["prlimit", "--pid", str(d.process.pid), f"--data={held + (12 << 20)}"], check=True)
    r = put(d, comfortable)
    assert r.status_code == 503, r.text
    m = check_account(d)
    assert m["budget_bytes"] == m["target_bytes"] < comfortable
    assert d.say("Once upon a time", max_tokens=16)
    d.stop()


def test_memory_max_below_memory_is_refused():
    r = vramd("serve", "--check", "--model", MODEL, *OPTIONS, "--memory", "600MiB", "--memory-max", "500MiB")
    assert r.returncode != 0 and "memory_max" in r.stderr
