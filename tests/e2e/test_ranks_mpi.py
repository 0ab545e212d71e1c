"""Ranks that mpirun starts, which have no memory in common: the same answers as one process, plans and ledgers, and what
happens when one of them ends, stands still, or is not one of a group. Skipped without Open MPI."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import BINARY, MODEL, SANITIZED, Daemon, refused
from test_ranks import PROMPT, SOON, answers, gone
from tiny_model import write

PLUGIN = Path(BINARY).with_name("vramd-mpi.so")
# More ranks than cores can be; the parameter leaves rank 0 the time to answer its clients (docs/parallel.md).
RUN = ["mpirun", "--oversubscribe", "--mca", "odls_base_sigkill_timeout", "6"]
ENV = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
SIZES = ["--threads", "1", "--max-model-len", "512", "--max-num-seqs", "8"]

pytestmark = pytest.mark.skipif(not shutil.which("mpirun") or not PLUGIN.exists() or SANITIZED, reason="no Open MPI, or no vramd-mpi.so (make mpi)")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "tiny.gguf"
    write(path, "Q8_0", width=288, heads=9, kv_heads=3, ff=416, layers=4)
    return str(path)


class Launched(Daemon):
    """Its process is mpirun, which gives rank 0's output."""

    def __init__(self, n, *options, model):
        self.began = time.time()
        super().__init__(*SIZES, *options, under=[*RUN, "-n", str(n)], env=ENV, model=model)

    def ranks(self):
        """Processes by rank."""
        found = {}
        for p in Path("/proc").iterdir():
            try:
                of_us = p.name.isdigit() and re.search(rf"^PPid:\s+{self.process.pid}$", (p / "status").read_text(), re.M)
                m = of_us and re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", (p / "environ").read_bytes())
            except OSError:
                continue
            if m:
                found[int(m[1])] = int(p.name)
        return found

    def stop(self):
        os.kill(self.ranks()[0], signal.SIGTERM)
        self.wait_log(" info draining")
        return super().stop()


def launched(model, ranks, *options, stages=1):
    return Launched(ranks * stages, "--tensor-parallel-size", str(ranks), "--pipeline-parallel-size", str(stages), *options, model=model)


def test_any_number_of_ranks_gives_the_answers_of_one(tiny):
    d = Daemon(*SIZES, model=tiny)
    expected = answers(d)
    d.stop()
    for n, stages in ((3, 1), (2, 2)):
        d = launched(tiny, n, stages=stages)
        assert answers(d) == expected, f"{n} ranks of {stages} stages"
        others = d.ranks()
        assert len(others) == n * stages
        text = d.stop()
        assert " error " not in text and gone(others.values(), SOON), text


def test_the_real_model_on_two_ranks():
    said = []
    for d in (Daemon(*SIZES, model=MODEL), launched(MODEL, 2)):
        said.append([d.choice(PROMPT, max_tokens=16, logprobs=2), d.choice(PROMPT, max_tokens=8, temperature=0.8, seed=3)])
        d.stop()
    assert [(c["text"], c["logprobs"]) for c in said[0]] == [(c["text"], c["logprobs"]) for c in said[1]]


@pytest.mark.parametrize("n, stages", [(3, 1), (1, 3)])
def test_plan_is_ledger_on_each_rank(tiny, n, stages):
    d = launched(tiny, n, "--memory", "200MiB", stages=stages)
    d.say(PROMPT, max_tokens=4)
    end = time.monotonic() + SOON  # what the others hold comes five times a second
    memory = d.memory()
    while not all(any(c["ledger_bytes"] for c in r["classes"]) for r in memory["ranks"]):
        assert time.monotonic() < end, memory
        time.sleep(0.05)
        memory = d.memory()
    flags = ["--tensor-parallel-size", str(n), "--pipeline-parallel-size", str(stages), "--distributed-executor-backend", "mpi", *SIZES]
    plan = json.loads(subprocess.run([BINARY, "plan", tiny, *flags, "--memory", "200MiB", "--json"], check=True, capture_output=True).stdout)
    assert len(memory["ranks"]) == n * stages
    for i, rank in enumerate(memory["ranks"]):
        for c in rank["classes"]:
            if c["class"] in ("http", "loading"):
                continue
            assert c["ledger_bytes"] == c["plan_bytes"] == plan["ranks"][i]["classes"].get(c["class"], 0), (i, c)
        assert plan["ranks"][i]["total_bytes"] <= 200 << 20
    assert abs(memory["unaccounted_bytes"]) < 16 << 20
    d.stop()


# ---- what cannot be ----


def started(n, *options, model):
    """mpirun's end, where the ranks refuse."""
    return subprocess.run([*RUN, "-n", str(n), BINARY, "serve", "--model", model, "--port", "0", *SIZES, *options], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=120, env={**os.environ, **ENV})


def test_another_number_of_processes_is_refused(tiny):
    r = started(3, "--tensor-parallel-size", "2", model=tiny)
    assert r.returncode == 2, r.stderr
    assert "MPI has 3 processes, but tensor_parallel_size = 2 and pipeline_parallel_size = 1 are 2 ranks" in r.stderr
    assert "mpirun -n 2 vramd serve" in r.stderr
    r = started(2, model=tiny)  # which would be two daemons on one port
    assert r.returncode == 2 and "MPI has 2 processes, but" in r.stderr
    alone = subprocess.run([BINARY, "serve", "--model", tiny, "--port", "0", "--tensor-parallel-size", "2", "--distributed-executor-backend", "mpi"],
                           text=True, capture_output=True, timeout=120)
    assert alone.returncode == 2 and "MPI has 1 process, but" in alone.stderr


def test_a_model_that_is_not_there_ends_all_ranks(tiny, tmp_path):
    r = started(2, "--tensor-parallel-size", "2", model=str(tmp_path / "none.gguf"))
    assert r.returncode not in (0, -signal.SIGKILL) and "none.gguf" in r.stderr, r.stderr


# ---- failure ----


def lose(d, harm, say):
    """Clients that wait while a rank is harmed: each has an answer, which says that the ranks end, and no process is left."""
    ranks, answered = d.ranks(), []

    def ask(i):
        r = d.complete(f"{i} " + PROMPT, max_tokens=480, ignore_eos=True, stream=i % 2 == 1)
        answered.append((r.status_code, r.text))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    time.sleep(0.3)
    harm(ranks)
    for t in threads:
        t.join(SOON)
    assert len(answered) == len(threads), d.text()
    assert all(code == 200 or (code >= 500 and "error" in text) for code, text in answered), answered
    code = d.process.wait(SOON)
    assert code not in (0, -signal.SIGKILL), d.text()
    assert gone(ranks.values(), SOON)
    assert re.search(say, d.text()), d.text()
    assert not [p for p in Path("/dev/shm").glob("vader_segment*") if p.stat().st_mtime > d.began]
    return code


@pytest.mark.parametrize("n, stages", [(2, 1), (1, 3)])
def test_a_killed_rank_ends_the_group(tiny, n, stages):
    lose(launched(tiny, n, stages=stages), lambda ranks: os.kill(ranks[1], signal.SIGKILL), r"rank 1 of \d did not answer")


@pytest.mark.parametrize("n, stages", [(2, 1), (1, 2)])
def test_a_rank_that_stands_still_ends_the_group(tiny, n, stages):
    assert lose(launched(tiny, n, stages=stages), lambda ranks: os.kill(ranks[1], signal.SIGSTOP), r"rank 1 of 2 did not answer within \d+ ms") == 11


def test_the_others_end_with_rank_0(tiny):
    d = launched(tiny, 3)
    ranks = d.ranks()
    os.kill(ranks[0], signal.SIGSTOP)  # the launcher sees nothing of it
    assert d.process.wait(SOON) == 11, d.text()
    assert gone(ranks.values(), SOON) and "rank 0 of 3 did not answer" in d.text()


def test_no_plugin_is_an_error_that_names_it(tiny, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("no library")
    flags = ["--model", tiny, "--tensor-parallel-size", "2", "--distributed-executor-backend", "mpi"]
    for path, code, why in ((str(tmp_path / "none.so"), 3, "there is no such file"), (str(text), 6, "")):
        r = refused(*flags, "--mpi-plugin", path)
        assert r.returncode == code and f"the MPI plugin {path}: {why}" in r.stderr and "openmpi-bin" in r.stderr, r.stderr
