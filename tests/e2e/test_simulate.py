"""vramd simulate: figures of a server that is not there, each marked as simulated."""

import json
import os
import re
import sys
from xml.etree import ElementTree

import pytest

from harness import ROOT, Daemon, vramd
from test_recurrent import complete, tokens, write

MODEL = ["--model", os.environ["VRAMD_TEST_MODEL"], "--max-model-len", "2048", "--bandwidth", "41GB/s"]


def figures(*flags):
    r = vramd("simulate", *flags, "--json")
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def test_a_run_says_what_it_is_and_is_repeatable():
    flags = [*MODEL, "--rate", "1", "--requests", "200", "--slo-ttft-p99", "0.5s", "--slo-itl-p99", "8ms"]
    first, again = figures(*flags), figures(*flags)
    assert first.pop("wall_s") >= 0 and again.pop("wall_s") >= 0 and first == again
    assert first["schema"] == "vramd-simulate" and first["version"] == 1 and first["simulated"]
    assert first["requests"] == 200 and first["output_tokens"] == 200 * 64 and first["prompt_tokens"] == 200 * 128
    assert 0 < first["ttft_ms"]["p50"] <= first["ttft_ms"]["p90"] <= first["ttft_ms"]["p99"] <= first["ttft_ms"]["p99.9"] <= first["ttft_ms"]["max"]
    assert (first["slo_ttft_ms"], first["slo_itl_ms"]) == (500, 8) and 0 < first["good"] < 200
    assert first["cost_model"]["mape"] is None and first["cost_model"]["source"].startswith("assumed: 41 GB/s (as given)")
    assert figures(*flags, "--seed", "2")["ttft_ms"] != first["ttft_ms"]
    text = vramd("simulate", *flags).stdout.splitlines()
    assert len(text) >= 7 and all(line.startswith("simulated, seed 1, assumed:  ") for line in text)


def test_options_of_serve_have_their_effect():
    flags = [*MODEL, "--rate", "1.2", "--requests", "300", "--max-num-batched-tokens", "512"]
    free, slo = figures(*flags), figures(*flags, "--itl-slo-ms", "30")
    assert slo["itl_ms"]["p99"] < free["itl_ms"]["p99"] / 2
    assert figures(*flags, "--batching", "static")["ttft_ms"]["mean"] > 1.2 * free["ttft_ms"]["mean"]


def test_times_have_units():
    values = [figures(*MODEL, "--rate", "1", "--requests", "10", "--slo-ttft-p99", t)["slo_ttft_ms"] for t in ("2s", "2000ms", "2000", "2000000us")]
    assert values == [2000] * 4
    for t in ("2m", "s", "-1s", "2 s", "nan", "1e30s"):
        r = vramd("simulate", *MODEL, "--rate", "1", "--slo-ttft-p99", t)
        assert r.returncode == 2 and "--slo-ttft-p99" in r.stderr and "is not a time" in r.stderr


def test_time_outside_of_the_engine_comes_on_top():
    flags = [*MODEL, "--rate", "0.1", "--requests", "50", "--output-tokens", "11"]
    plain, http, host = figures(*flags), figures(*flags, "--http-time", "5ms"), figures(*flags, "--host-time", "10ms")
    assert http["ttft_ms"]["mean"] == pytest.approx(plain["ttft_ms"]["mean"] + 5, abs=0.01)
    assert http["itl_ms"] == plain["itl_ms"]
    assert host["itl_ms"]["mean"] == pytest.approx(plain["itl_ms"]["mean"] + 10, abs=0.01)
    assert (host["host_us_per_step"], http["http_ms_per_request"]) == (10000, 5)


@pytest.mark.parametrize("load", [["--rate", "2"], ["--find-capacity", "--slo-ttft-p99", "2s"]])
def test_a_picture_says_what_it_is(load, tmp_path):
    picture = tmp_path / "load.svg"
    figures(*MODEL, *load, "--requests", "100", "--svg", str(picture))
    text = picture.read_text()
    ElementTree.fromstring(text)
    assert "simulated, seed 1, assumed" in text and "41 GB/s (as given)" in text and "KV cache" in text and "nan" not in text
    r = vramd("simulate", *MODEL, *load, "--svg", str(tmp_path / "none" / "x"))
    assert r.returncode == 4 and r.stdout == ""


def test_capacity_is_between_what_keeps_and_what_breaks_the_objectives():
    slo = ["--slo-ttft-p99", "2s", "--slo-itl-p99", "200ms"]
    c = figures(*MODEL, *slo, "--find-capacity")["requests_per_s"]
    assert 0 < c["low"] <= c["median"] <= c["high"] < 2 * c["low"]
    below, above = (figures(*MODEL, "--rate", str(c["median"] * f)) for f in (0.7, 1.5))
    assert below["ttft_ms"]["p99"] <= 2000 and below["itl_ms"]["p99"] <= 200
    assert above["ttft_ms"]["p99"] > 2000 or above["itl_ms"]["p99"] > 200
    assert vramd("simulate", *MODEL, "--find-capacity").returncode == 2


def test_a_trace_gives_times_lengths_and_prefixes(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps({"timestamp": 1000 * i, "input_length": 1024, "output_length": 4, "hash_ids": [i % 4, 10 + i % 4]}) + "\n"
                             for i in range(40)))
    flags = [*MODEL, "--trace", str(trace), "--replicas", "4", "--kv-cache-tokens", "8192"]
    random, near = (figures(*flags, "--router", r) for r in ("two-choices", "prefix-affinity"))
    assert random["requests"] == 40 and 39 < random["simulated_s"] < 60
    assert near["cached_tokens"] == 36 * 1008 > random["cached_tokens"]


def fitted(log):
    d = Daemon("--max-model-len", "512", "--max-num-seqs", "4", "--step-log", str(log))
    for i in range(6):
        d.complete(f"{'word ' * (40 * i)} {i}:", max_tokens=40, ignore_eos=True)
    d.stop()
    return figures("--step-log", str(log), "--rate", "0.5", "--requests", "50")


def test_limits_and_costs_of_a_server(tmp_path):
    """Where other work stops the server within the steps that are fitted, their model is wrong: then another log is taken."""
    for i in range(3):
        r = fitted(tmp_path / f"steps{i}")
        if 0 < r["cost_model"]["mape"] < 2 and r["cost_model"]["us_per_row"] > 0:
            break
    assert re.match(r"fitted to \d+ steps of steps\d, error", r["cost_model"]["source"]) and 0 < r["cost_model"]["mape"] < 2
    assert r["cost_model"]["us_per_row"] > 0 and r["rejected"] == 0 and 0 < r["host_us_per_step"] < 20000


RECURRENT = ["--backend", "cpu", "--max-model-len", "512", "--max-num-seqs", "4", "--state-checkpoints", "9"]


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    return write(tmp_path_factory.mktemp("recurrent") / "m.gguf", "qwen35")


def test_states_are_planned_as_for_a_server(recurrent):
    """Bytes and slots as in the plan, in memory that the KV cache has less; a state is read with each token."""
    flags = ["--model", str(recurrent), *RECURRENT, "--memory", "128MiB", "--bandwidth", "41GB/s", "--rate", "5", "--requests", "40"]
    r = figures(*flags)
    plan = json.loads(vramd("plan", "--json", str(recurrent), *RECURRENT, "--memory", "128MiB").stdout)
    states, each = r["states"], plan["state_bytes_per_sequence"]
    assert states["bytes"] == sum(t["bytes"] for t in plan["terms"] if t["class"] == "state")
    assert (states["slots"], states["checkpoint_slots"], states["bytes_each"]) == (13, 9, each)
    assert 0 < states["slots_used_max"] <= 13 and states["checkpoints_written"] >= 40 and states["checkpoints_evicted"] > 0
    assert r["cost_model"]["us_per_logit_row"] == pytest.approx(each / 41e3, rel=1e-4)
    text = vramd("simulate", *flags).stdout
    assert "recurrent states: 13 slots of " in text and "4 of sequences, 9 of checkpoints" in text and "checkpoints of states written" in text
    assert figures(*flags, "--no-prefix-caching")["states"]["slots"] == 4
    capacity = figures(*flags, "--find-capacity", "--slo-ttft-p99", "2s")["states"]
    assert capacity == {k: states[k] for k in ("bytes", "bytes_each", "slots", "checkpoint_slots")}
    assert figures(*MODEL, "--rate", "1", "--requests", "10")["states"] is None


def test_states_are_those_of_the_server_that_wrote_a_log(recurrent, tmp_path):
    log = tmp_path / "steps"
    d = Daemon("--model", str(recurrent), *RECURRENT, "--step-log", str(log))
    for i in range(4):
        complete(d, tokens(40 + 30 * i, i), 40)
    (planned,) = [c["ledger_bytes"] for c in d.memory()["classes"] if c["class"] == "state"]
    d.stop()
    flags = ["--step-log", str(log), "--rate", "5", "--requests", "40"]
    states = figures(*flags)["states"]
    assert (states["slots"], states["checkpoint_slots"], states["bytes"]) == (13, 9, planned)
    for more, slots in ((["--max-num-seqs", "20"], 29), (["--state-checkpoints", "2"], 6), (["--no-prefix-caching"], 4)):
        assert figures(*flags, *more)["states"]["slots"] == slots


@pytest.mark.parametrize("flags, text", [([], "no load is given"), (["--rate", "-1"], "--rate"), (["--rate", "1", "--router", "x"], "--router"),
                                         (["--rate", "1", "--bandwidth", "x"], "--bandwidth"), (["--trace", "/none"], "trace")])
def test_what_makes_no_sense_is_refused(flags, text):
    r = vramd("simulate", *MODEL[:4], *flags)
    assert r.returncode in (2, 3) and text in r.stderr


def test_the_validation_compares_live_with_simulated(monkeypatch):
    sys.path.insert(0, str(ROOT / "bench"))
    import bench_simulate as b
    kept = {}
    monkeypatch.setattr(b, "save", lambda name, rows, **more: kept.update(more, rows=rows))
    monkeypatch.setattr(sys, "argv", ["bench_simulate.py", "--requests", "4", "--repeats", "2", "--calibration", "8"])
    b.main()
    assert [r["load"] for r in kept["rows"]] == [0.3, 0.6, 0.85] and kept["cost_model"]["source"].startswith("fitted to ")
    for r in kept["rows"]:
        for d in (r[name] for name in b.FIGURES):
            assert d["live"] > 0 and d["simulated"] > 0 and d["scatter_percent"] >= 0
            assert d["difference_percent"] == pytest.approx(100 * (d["simulated"] / d["live"] - 1), abs=1)
