"""A real Prometheus scrapes the daemon: every name of the API is there to be queried, and its own linter is content."""

import contextlib
import re
import socket
import subprocess
import time

import httpx
import pytest

from harness import ROOT

GAUGES = {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"}
COUNTERS = {"vllm:num_preemptions_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
            "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:request_success_total"}
HISTOGRAMS = {"vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
              "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
              "vllm:iteration_tokens_total", "vllm:request_inference_time_seconds", "vllm:request_prompt_tokens",
              "vllm:request_generation_tokens", "vllm:request_params_n", "vllm:request_params_max_tokens"}
MEMORY = {"vramd_memory_bytes", "vramd_memory_budget_bytes", "vramd_memory_peak_bytes", "vramd_memory_unaccounted_bytes",
          "vramd_memory_plan_bytes", "vramd_kv_blocks", "vramd_kv_bytes_per_token"}


@pytest.fixture(scope="module")
def tools():
    return subprocess.run([ROOT / "tools/get-prometheus.sh"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def query(daemon, tools, tmp_path_factory):
    """Asks a Prometheus that scrapes the daemon every second; it has done so when this is there."""
    here = tmp_path_factory.mktemp("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    (here / "prometheus.yml").write_text(f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: vramd, static_configs: [{{targets: ["127.0.0.1:{daemon.port}"]}}]}}]
""")
    subprocess.run([tools + "/promtool", "check", "config", here / "prometheus.yml"], check=True, capture_output=True)
    assert daemon.complete("The old harbour", max_tokens=8, ignore_eos=True).status_code == 200
    with open(here / "log", "w") as log:
        p = subprocess.Popen([tools + "/prometheus", f"--config.file={here}/prometheus.yml", f"--storage.tsdb.path={here}/data",
                              f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        def ask(what):
            r = http.get("/api/v1/query", params={"query": what})
            assert r.status_code == 200 and r.json()["status"] == "success", r.text
            return r.json()["data"]["result"]

        end = time.monotonic() + 60
        while True:
            assert p.poll() is None and time.monotonic() < end, (here / "log").read_text()[-2000:]
            with contextlib.suppress(httpx.TransportError, AssertionError):
                if ask('up{job="vramd"} == 1'):
                    break
            time.sleep(0.1)
        try:
            yield ask
        finally:
            p.terminate()
            p.wait(60)


def test_every_name_of_the_api_arrives_in_prometheus(query):
    names = {r["metric"]["__name__"] for r in query('{job="vramd"}')}
    assert GAUGES | COUNTERS | MEMORY <= names, (GAUGES | COUNTERS | MEMORY) - names
    wanted = {n + x for n in HISTOGRAMS for x in ("_bucket", "_sum", "_count")}
    assert wanted <= names, wanted - names


def test_what_dashboards_compute_of_it_makes_sense(query):
    assert float(query("vllm:generation_tokens_total")[0]["value"][1]) >= 8
    (p,) = query("histogram_quantile(0.99, vllm:time_to_first_token_seconds_bucket)")
    assert 0 < float(p["value"][1]) < 2560
    (share,) = query("sum(vramd_memory_bytes) / vramd_memory_budget_bytes") or query(
        "sum(vramd_memory_bytes) / sum(vramd_memory_budget_bytes)")
    assert 0.1 < float(share["value"][1]) <= 1
    (info,) = query("vllm:cache_config_info")
    assert int(info["metric"]["block_size"]) * int(info["metric"]["num_gpu_blocks"]) > 0
    assert {r["metric"]["finished_reason"] for r in query("vllm:request_success_total")} >= {"stop", "length", "abort"}
    assert query("count(count by (model_name) ({job='vramd', model_name!=''}))")[0]["value"][1] == "1"


def test_promtool_finds_nothing_wrong_with_our_names(daemon, tools):
    text = daemon.http.get("/metrics").text
    own = [row for row in text.splitlines() if re.match(r"(# \S+ )?vramd_", row)]
    assert len(own) > 100
    p = subprocess.run([tools + "/promtool", "check", "metrics"], input="\n".join(own) + "\n", text=True, capture_output=True)
    assert p.returncode == 0 and not p.stdout and not p.stderr, p.stdout + p.stderr
