"""Experts that stay in the model's file (expert_memory): the same answers with any number of slots, bytes as planned, under a
cgroup's limit too, and a file that can no longer be read ends sequences, not the daemon."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import ROOT, SANITIZED, Daemon, refused, vramd

LAYERS, EXPERTS = 3, 8
OPTIONS = ["--backend", "cpu", "--max-model-len", "512", "--max-num-seqs", "4", "--kv-cache-tokens", "2048", "--max-num-batched-tokens", "64",
           "--no-prefix-caching", "--max-connections", "16"]
PROMPTS = [[(i * k) % 900 for i in range(1, n)] for k, n in ((7, 90), (13, 5), (29, 200))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("experts") / "moe.gguf"
    subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", "moe", "--type", "Q4_K", "--layers", str(LAYERS),
                    "--vocab", "1000"], check=True, stdout=subprocess.DEVNULL)
    return str(path)


@contextlib.contextmanager
def serving(model, *options, **more):
    d = Daemon("--model", model, *OPTIONS, *options, **more)
    try:
        yield d
    finally:
        d.stop()


def answers(d):
    choices = [d.choice(p, max_tokens=12, logprobs=2, ignore_eos=True) for p in PROMPTS]
    return [(c["text"], c["logprobs"]["token_logprobs"]) for c in choices]


def counts(d):
    text = d.http.get("/metrics").text
    return {k: float(v) for k, v in re.findall(r"^vramd_(experts?[a-z_]*)\{[^}]*\} (\S+)$", text, re.M)}


def planned(model, *options):
    return json.loads(vramd("plan", "--json", *OPTIONS, *options, model).stdout)


def by_class(m):
    return {c["class"]: c for c in m["classes"]}


@pytest.fixture(scope="module")
def wanted(model):
    with serving(model) as d:
        assert not counts(d) and by_class(d.memory())["experts"]["plan_bytes"] == 0
        return answers(d)


@pytest.mark.parametrize("share, slots", [("2%", 2), ("25%", 6), ("50%", 12), ("99%", 23)])
def test_answers_are_those_of_all_in_memory(model, wanted, share, slots):
    with serving(model, "--expert-memory", share) as d:
        assert answers(d) == wanted
        n = counts(d)
        assert (n["expert_slots"], n["experts"], n["expert_read_errors_total"]) == (slots, LAYERS * EXPERTS, 0)
        assert n["expert_misses_total"] >= slots and n["expert_read_bytes_total"] > 0
        assert n["expert_hits_total"] > 0 or slots == 2
        classes = by_class(d.memory())
        plan = planned(model, "--expert-memory", share)["terms"]
        for name in ("weights", "experts", "workspace", "activations"):
            assert classes[name]["ledger_bytes"] == classes[name]["plan_bytes"] > 0
            assert classes[name]["plan_bytes"] == sum(t["bytes"] for t in plan if t["class"] == name)


def test_what_does_not_fit_is_served_with_auto(model, wanted):
    all_in = planned(model)["total_bytes"]
    budget = ["--memory", str(all_in * 2 // 3)]
    r = refused("--model", model, *OPTIONS, *budget)
    assert "or give expert_memory = auto" in r.stderr
    with serving(model, *budget, "--expert-memory", "auto") as d:
        m = d.memory()
        assert m["plan_bytes"] <= all_in * 2 // 3
        slot = by_class(m)["experts"]["plan_bytes"] / counts(d)["expert_slots"]
        assert all_in * 2 // 3 - m["plan_bytes"] < slot * 1.2  # no slot more would fit
        assert answers(d) == wanted
    with serving(model, "--expert-memory", "auto") as d:
        assert not counts(d)  # all fit


@pytest.mark.parametrize("word, said", [("many", "neither a size nor a share"), ("1MiB", "does not hold two experts"), ("0%", "neither a size"),
                                        ("120%", "neither a size")])
def test_values_that_cannot_be_are_refused(model, word, said):
    assert said in refused("--model", model, *OPTIONS, "--expert-memory", word).stderr


def test_a_dense_model_has_no_slots():
    assert "the model has no experts" in refused("--model", os.environ["VRAMD_TEST_MODEL"], "--backend", "cpu", "--expert-memory", "25%").stderr


def test_a_file_that_shrinks_ends_sequences_and_not_the_daemon(model, tmp_path):
    path = tmp_path / "shrinks.gguf"
    path.write_bytes(Path(model).read_bytes())
    with serving(str(path), "--expert-memory", "25%") as d:
        d.say(PROMPTS[0], max_tokens=4)
        os.truncate(path, 1 << 20)
        for prompt in PROMPTS:
            r = d.complete(prompt)
            assert r.status_code >= 500 and "error" in r.json(), r.text
        assert counts(d)["expert_read_errors_total"] > 0
        assert "since it was opened" in d.text()
        assert d.http.get("/livez").status_code == 200 and d.http.get("/v1/models").status_code == 200
        d.wait_free()


@contextlib.contextmanager
def limited(n_bytes):
    """Words before a command that run it in a memory cgroup, v2 or v1, of so many bytes; skips where none can be made."""
    for folder, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(folder, f"vramd-experts-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            with open(group / limit, "r+") as f: # where it is there: the folder is a cgroup's
                f.write(str(n_bytes))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group, ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        finally:
            group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep memory of their own")
def test_the_kernel_counts_no_more_than_the_plan_and_2_percent(model, wanted):
    options = ["--expert-memory", "25%"]
    plan = planned(model, *options)
    most = max(plan["total_bytes"], plan["load_peak_bytes"])
    subprocess.run(["dd", f"if={model}", "iflag=nocache", "count=0", "status=none"], check=True)
    with limited(most + most // 50) as (group, under):
        with serving(model, *options, under=under) as d:
            for _ in range(3):
                assert answers(d) == wanted
            events = "".join(p.read_text() for p in (group / "memory.events", group / "memory.oom_control") if p.exists())
            assert re.search(r"^oom_kill 0$", events, re.M)
            m = d.memory()
            assert by_class(m)["experts"]["ledger_bytes"] == by_class(m)["experts"]["plan_bytes"]
