"""serve --step-log, and vramd simulate --replay: the same inputs give the same plans."""

import os
import re
import signal
import stat
import threading
import time

import pytest

from harness import Daemon, vramd
from test_recurrent import write

SMALL = ["--max-model-len", "512", "--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--kv-cache-tokens", "1024"]


def load(d):
    """Requests of all sorts, several at once: more than fit, so that some are preempted; streams that are cut off."""
    def ask(i):
        body = {"prompt": f"{'The same beginning of a text. ' * (i % 5)} {i}", "max_tokens": 40 + i, "temperature": 0.8, "seed": i,
                "n": 1 + (i % 3 == 0), "ignore_eos": i % 2 == 0, "priority": i % 2}
        if i % 4 == 1:
            body["timeout"] = 0.05
        if i % 4 == 2:
            body["response_format"] = {"type": "json_object"}
        if i % 4 == 3:
            with d.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as r:
                next(r.iter_lines())
            return
        d.http.post("/v1/completions", json=body)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


@pytest.mark.parametrize("options", [[], ["--scheduler-policy=fcfs", "--itl-slo-ms=30"], ["--batching=dynamic"], ["--speculative=lookup"], ["--kv-disk={kv}"],
                                     ["--memory-max=700MiB", "--memory=500MiB", "--kv-cache-tokens=0"]],
                         ids=["plain", "objective", "dynamic", "lookup", "disk", "resize"])
def test_a_replay_plans_the_same_steps(options, tmp_path):
    log = tmp_path / "steps"
    d = Daemon(*SMALL, "--step-log", str(log), *[o.format(kv=tmp_path / "kv") for o in options])
    load(d)
    if "--memory=500MiB" in options:
        assert d.http.put("/v1/memory", json={"budget_bytes": 400 << 20}).status_code in (200, 202)
        load(d)
    if "--kv-disk={kv}" in options:
        assert d.http.delete("/v1/cache").status_code == 200
        load(d)
    said = d.stop()
    assert "0 records were dropped" in said
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
    r = vramd("simulate", "--replay", str(log), "--audit")
    assert r.returncode == 0, r.stderr
    assert "every plan is the same" in r.stdout
    steps, requests = re.search(r"(\d+) requests, (\d+) steps", r.stdout).groups()[::-1]
    assert int(steps) > 100 and int(requests) >= 24


def test_states_are_in_a_log(tmp_path):
    """Slots, checkpoints and copies are in the hash of a plan."""
    log, model = tmp_path / "steps", write(tmp_path / "m.gguf", "qwen35")
    d = Daemon("--model", str(model), *SMALL, "--backend", "cpu", "--state-checkpoints", "5", "--step-log", str(log))
    load(d)
    load(d)
    d.stop()
    r = vramd("simulate", "--replay", str(log), "--audit")
    assert r.returncode == 0 and "every plan is the same" in r.stdout, r.stderr


def test_what_was_changed_or_cut_off_is_seen(tmp_path):
    log = tmp_path / "steps"
    d = Daemon(*SMALL, "--step-log", str(log))
    d.say("One, two,")
    d.stop()
    text = bytearray(log.read_bytes())
    cut = tmp_path / "cut"
    cut.write_bytes(text[:-3])
    r = vramd("simulate", "--replay", str(cut))
    assert r.returncode == 5 and "cut off" in r.stderr and re.search(r"replayed \d+ records: 1 requests", r.stdout)
    cut.write_bytes(b"{}")
    assert vramd("simulate", "--replay", str(cut)).returncode == 5
    records, at = [], 8
    while at < len(text):
        n = int.from_bytes(text[at:at + 4], "little")
        records.append((at, bytes(text[at + 4:at + 4 + n])))
        at += 4 + n
    plan = next(i for i, (_, r) in enumerate(records) if r[0] == 6 and len(r) > 12)
    at, record = records[plan]
    text[at + 4 + len(record) - 9] ^= 1  # in the hash of the plan
    cut.write_bytes(text)
    r = vramd("simulate", "--replay", str(cut))
    assert r.returncode == 2 and f"record {plan + 1}: " in r.stderr, r.stderr


def test_a_server_that_is_killed_leaves_a_log_of_what_it_wrote(tmp_path):
    log = tmp_path / "steps"
    d = Daemon(*SMALL, "--step-log", str(log))
    d.say("One, two,")
    size = log.stat().st_size
    end = time.monotonic() + 20
    while log.stat().st_size <= max(size, 1000) and time.monotonic() < end:
        time.sleep(0.1)
    d.process.send_signal(signal.SIGKILL)
    d.process.wait()
    assert "1 requests" in vramd("simulate", "--replay", str(log)).stdout


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_log_that_cannot_be_written_is_refused(check, tmp_path):
    (tmp_path / "link").symlink_to("steps")
    for path in (tmp_path / "no" / "steps", tmp_path, tmp_path / "link"):
        r = vramd("serve", "--model", os.environ["VRAMD_TEST_MODEL"], "--step-log", str(path), *check)
        assert r.returncode == 4 and "step_log" in r.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link"]


def test_a_check_leaves_no_file_and_changes_none(tmp_path):
    log, old = tmp_path / "steps", tmp_path / "old"
    old.write_text("kept")
    for path in (log, old):
        r = vramd("serve", "--check", "--model", os.environ["VRAMD_TEST_MODEL"], "--step-log", str(path))
        assert r.returncode == 0, r.stderr
    assert not log.exists() and old.read_text() == "kept"
