"""Several processes that share a model: the same answers as one, the plan and the ledger of each, and what happens to
clients and processes when one of them ends, stands still, or is of another version."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from harness import MODEL, Daemon, refused, vramd
from tiny_model import write

PROMPT = "The history of the city began when"
SOON = 60  # seconds; 6 on a machine that is not loaded: a deadline of 5 s, and 1 s to end. Without the deadline it is for ever


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks") / "tiny.gguf"
    write(path, "Q8_0", width=288, heads=9, kv_heads=3, ff=416, layers=4)
    return str(path)


def served(model, ranks, *options, stages=1):
    """ranks: of each stage."""
    return Daemon("--tensor-parallel-size", str(ranks), "--pipeline-parallel-size", str(stages), "--threads", "2", "--max-model-len", "512",
                  "--max-num-seqs", "8", *options, model=model)


def ranks_of(daemon):
    """The other processes, by rank."""
    pid, found = daemon.process.pid, {}
    for p in Path("/proc").iterdir():
        if not p.name.isdigit():
            continue
        try:
            words = (p / "cmdline").read_bytes().split(b"\0")
            parent = int(re.search(r"^PPid:\s+(\d+)", (p / "status").read_text(), re.M)[1])
        except OSError:
            continue
        if parent == pid and words[1:2] == [b"rank"]:
            found[int(words[2])] = int(p.name)
    return found


def answers(daemon):
    one = [daemon.choice(PROMPT, max_tokens=24, logprobs=3), daemon.choice(PROMPT, max_tokens=12, temperature=1, seed=7),
           daemon.choice("and " * 150, max_tokens=8, repetition_penalty=1.3)]
    many = [None] * 6

    def ask(i):
        many[i] = daemon.choice(f"{i} {PROMPT} " * (i + 1), max_tokens=10 + i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(many))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return [{k: c[k] for k in ("text", "logprobs", "finish_reason")} for c in one + many]


def test_any_number_of_ranks_gives_the_answers_of_one(tiny):
    expected = None
    for n, stages in ((1, 1), (2, 1), (3, 1), (8, 1), (1, 2), (1, 3), (1, 4), (2, 2)):
        d = served(tiny, n, stages=stages)
        got = answers(d)
        expected = expected or got
        assert got == expected, f"{n} ranks of {stages} stages"
        assert len(ranks_of(d)) == n * stages - 1
        assert "invariant broken" not in d.stop()  # of a rank, which gives back all that it holds


def test_stages_serve_what_else_changes_a_step(tiny):
    """Speculation (one step in flight), a cache of 4 bits with its tail, no prefix cache and few blocks."""
    for flags in (["--speculative", "lookup"], ["--kv-cache-dtype", "int4"], ["--no-prefix-caching", "--kv-cache-tokens", "640"]):
        got = []
        for stages in (1, 2):
            d = served(tiny, 1, *flags, stages=stages)
            got.append(answers(d))
            d.stop()
        assert got[0] == got[1], flags


def test_the_real_model_on_two_ranks():
    texts = []
    for n, stages in ((1, 1), (2, 1), (1, 2)):
        d = served(MODEL, n, stages=stages)
        texts.append([d.choice(PROMPT, max_tokens=48, logprobs=2), d.choice(PROMPT, max_tokens=16, temperature=0.8, seed=3)])
        d.stop()
    said = [[(c["text"], c["logprobs"]) for c in t] for t in texts]
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("n, stages", [(3, 1), (1, 3), (2, 2)])
def test_plan_is_ledger_on_each_rank(tiny, n, stages):
    flags = ["--tensor-parallel-size", str(n), "--pipeline-parallel-size", str(stages), "--threads", "2", "--max-model-len", "512", "--max-num-seqs", "8"]
    d = served(tiny, n, stages=stages)
    memory = d.memory()
    metrics = d.http.get("/metrics").text
    doc = json.loads(vramd("plan", tiny, *flags, "--memory", "1GiB", "--json").stdout)
    assert len(memory["ranks"]) == n * stages and len(doc["ranks"]) == n * stages
    for i, rank in enumerate(memory["ranks"]):
        for c in rank["classes"]:
            if c["class"] in ("http", "loading"):
                continue
            assert c["ledger_bytes"] == c["plan_bytes"], (i, c)
            assert f'class="{c["class"]}",device="cpu",rank="{i}"}} {c["ledger_bytes"]}' in metrics.replace(".0\n", "\n") or c["ledger_bytes"] == 0
        weights = next(c for c in rank["classes"] if c["class"] == "weights")["plan_bytes"]
        assert weights == doc["ranks"][i]["classes"]["weights"]
    assert abs(memory["unaccounted_bytes"]) < 16 << 20
    assert re.search(r"^vramd_ranks\{.*\} " + str(n * stages), metrics, re.M)
    d.stop()


def test_the_plan_has_a_column_for_each_rank(tiny):
    r = vramd("plan", tiny, "--tensor-parallel-size", "2", "--pipeline-parallel-size", "2", "--memory", "1GiB")
    assert r.returncode == 0, r.stderr
    assert "4 ranks (tensor 2 x pipeline 2)" in r.stdout and "one stream is no faster" in r.stdout
    assert re.search(r"^  heads \(q/kv\) +(\d/\d +){3}\d/\d$", r.stdout, re.M), r.stdout


def test_what_cannot_be_is_refused_by_name(tiny):
    base = ["--model", tiny, "--max-model-len", "512"]
    r = refused(*base, "--tensor-parallel-size", "10")
    assert "10 ranks, but layer 0 has 9 query heads" in r.stderr and "at most 9" in r.stderr
    assert "5 stages, but the model has 4 layers" in refused(*base, "--pipeline-parallel-size", "5").stderr
    assert "no hidden states" in refused(*base, "--pipeline-parallel-size", "2", "--embeddings", "last").stderr
    for flags in (["--memory-max", "2GiB"], ["--memory-pressure", "psi"]):
        r = refused(*base, "--tensor-parallel-size", "2", "--memory", "1GiB", *flags)
        assert "does not move while they serve" in r.stderr
    assert "cannot move KV blocks" in refused(*base, "--tensor-parallel-size", "2", "--kv-host-bytes", "3000000").stderr
    lfm2 = Path(__file__).resolve().parents[1] / "golden/families/lfm2.gguf"
    r = vramd("plan", str(lfm2), "--tensor-parallel-size", "2", "--memory", "1GiB")
    assert r.returncode == 6 and "the operation conv keeps a state" in r.stderr, r.stderr
    r = vramd("rank", "1")
    assert r.returncode != 0 and "tensor-parallel-size" in r.stderr


# ---- failure ----


def gone(pids, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{p}").exists() for p in pids):
            return True
        time.sleep(0.05)
    return False


def lose(daemon, harm, say):
    """Clients that wait while a rank is harmed: each has an answer soon, and then no process is left."""
    others, answered = ranks_of(daemon), []

    def ask(i):
        try:
            r = daemon.complete(f"{i} " + PROMPT, max_tokens=480, ignore_eos=True, stream=i % 2 == 1)
            answered.append((time.monotonic(), r.status_code, r.text))
        except Exception as e:
            answered.append((time.monotonic(), 0, repr(e)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    time.sleep(0.3)
    start = time.monotonic()
    harm(others)
    for t in threads:
        t.join(SOON + 10)
    assert len(answered) == len(threads), daemon.text()
    late = [a for a in answered if a[0] - start > SOON]
    assert not late, (late, daemon.text())
    code = daemon.process.wait(SOON)
    assert code not in (0, -signal.SIGKILL), daemon.text()
    assert gone(others.values(), SOON)
    assert re.search(say, daemon.text()), daemon.text()
    assert not list(Path("/dev/shm").glob("*vramd*"))


@pytest.mark.parametrize("n, stages", [(3, 1), (1, 3)])
def test_a_killed_rank_ends_the_group(tiny, n, stages):
    lose(served(tiny, n, stages=stages), lambda ranks: os.kill(ranks[2], signal.SIGKILL), r"rank 2 has ended \(signal 9\)|rank \d of 3 did not answer")


@pytest.mark.parametrize("n, stages, still", [(2, 1, 1), (1, 3, 1), (1, 2, 1), (2, 2, 3)])
def test_a_rank_that_stands_still_ends_the_group(tiny, n, stages, still):
    lose(served(tiny, n, stages=stages), lambda ranks: os.kill(ranks[still], signal.SIGSTOP), rf"rank {still} of {n * stages} did not answer within 5000 ms")


def test_a_rank_killed_while_idle_ends_the_group(tiny):
    d = served(tiny, 2)
    os.kill(ranks_of(d)[1], signal.SIGKILL)
    assert d.process.wait(SOON) not in (0, -signal.SIGKILL)
    assert "rank 1 has ended (signal 9)" in d.text()


def test_the_others_end_with_rank_0(tiny):
    d = served(tiny, 3)
    others = ranks_of(d).values()
    d.process.kill()
    d.process.wait(SOON)
    assert gone(others, SOON)


def test_a_signal_to_the_whole_group_drains(tiny):
    d = served(tiny, 2)
    others = ranks_of(d)
    text = []
    t = threading.Thread(target=lambda: text.append(d.say(PROMPT, max_tokens=200, ignore_eos=True)))
    t.start()
    time.sleep(0.2)
    for pid in [*others.values(), d.process.pid]:
        os.kill(pid, signal.SIGTERM)
    t.join(30)
    assert text and text[0]
    assert d.process.wait(20) == 0 and gone(others.values(), SOON)


def test_a_rank_that_ends_while_it_loads_ends_the_start():
    d = Daemon("--tensor-parallel-size", "3", "--max-model-len", "512", model=MODEL, wait=False)
    end = time.monotonic() + 30
    while 2 not in (others := ranks_of(d)):
        assert time.monotonic() < end and d.process.poll() is None, d.text()
    os.kill(others[2], signal.SIGKILL)
    assert d.process.wait(20) not in (0, -signal.SIGKILL)
    assert "a rank ended while it loaded the model" in d.text() or "rank 2 has ended" in d.text(), d.text()
    assert gone(others.values(), SOON)
