"""Latency objectives, from outside: ttft_slo_ms refuses what would come too late, and nothing else."""

import concurrent.futures
import re

import httpx

from harness import Daemon

OPTIONS = ["--max-num-seqs", "2", "--max-model-len", "512", "--no-prefix-caching"]
BODY = {"prompt": [7] * 200, "max_tokens": 60, "temperature": 0, "ignore_eos": True}


def sample(daemon, name):
    (value,) = re.findall(rf"^{re.escape(name)}\S* (\S+)$", daemon.http.get("/metrics").text, re.M)
    return float(value)


def crowd(daemon, n):
    send = lambda i: httpx.post(f"{daemon.url}/v1/completions", json={**BODY, "seed": i}, timeout=120)
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return list(pool.map(send, range(n)))


def test_a_request_whose_first_token_would_come_too_late_gets_429():
    d = Daemon("--ttft-slo-ms", "1", *OPTIONS)
    try:
        assert d.http.post("/v1/completions", json=BODY).status_code == 200  # idle: taken, and 60 steps are learned
        answers = crowd(d, 8)
        refused = [r for r in answers if r.status_code == 429]
        assert refused and len(refused) < 8 and {r.status_code for r in answers} == {200, 429}
        for r in refused:
            assert "the first token is predicted in" in r.json()["error"]["message"] and int(r.headers["Retry-After"]) >= 1
        d.wait_free()
        assert d.http.post("/v1/completions", json=BODY).status_code == 200
        assert 0 <= sample(d, "vramd_step_cost_error_ratio") < 1
    finally:
        d.stop()


def test_an_objective_that_is_kept_refuses_nothing():
    d = Daemon("--ttft-slo-ms", "3600000", "--itl-slo-ms", "1", *OPTIONS)
    try:
        assert d.http.post("/v1/completions", json=BODY).status_code == 200
        assert {r.status_code for r in crowd(d, 6)} == {200}
    finally:
        d.stop()
