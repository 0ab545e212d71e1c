"""What holds for every option: `vramd plan` plans what `vramd serve` takes, and SIGHUP changes what it says."""

import json
import os
import re
import signal
import subprocess

import pytest

from harness import MODEL, Daemon, untimed, vramd

BASE = {"max_model_len": "512", "max_num_seqs": "4", "max_num_batched_tokens": "64"}
# A value other than the default for each option that a rule cannot choose: texts, and numbers with a narrow meaning.
CHOSEN = {"served_model_name": "other", "embeddings": "mean", "host": "::1", "trusted_proxies": "10.0.0.0/8", "api_keys_file": "{keys}", "tls_cert": "{cert}",
          "tls_key": "{key}", "cors_origins": "https://a.example", "docs_dir": "/tmp", "memory": "400MiB", "memory_max": "900MiB", "memory_pressure": "psi",
          "cuda_plugin": "/nonexistent.so", "mpi_plugin": "/nonexistent.so", "distributed_executor_backend": "mpi", "kv_disk": "/nonexistent/kv", "kv_host_bytes": "64MiB", "expert_memory": "auto", "step_log": "{steps}", "cuda_device": "1", "max_model_len": "1024", "request_memory": "24MiB",
          "pre_tokenizer": "gpt-2", "strip_prompt_lines": "^x-mine:", "chat_template": "{template}", "chat_template_kwargs": '{{"enable_thinking": false}}',
          "kv_cache_tokens": "4096", "block_size": "32", "backend": "cpu", "gpu_layers": "7", "offload": "compute", "batching": "static", "speculative": "lookup", "draft_model": "{draft}", "speculative_tokens": "8", "itl_slo_ms": "40", "ttft_slo_ms": "4000", "slo_first": "ttft", "scheduler_policy": "fcfs", "attention": "unfused", "cpu_isa": "plain", "activation_dtype": "f32",
          "kv_cache_dtype": "f32", "cache_type_k": "f32", "cache_type_v": "f32", "temperature": "0.5", "top_p": "0.9",
          "top_k": "40", "min_p": "0.1", "request_timeout": "1", "log_level": "debug", "threads": "3", "max_num_seqs": "8", "max_num_batched_tokens": "128"}
NO_VALUE = ("model", "host_memory", "pipeline_parallel_size")  # in every call; refused by both without a device, see below; planned alone (test_ranks.py)
TOGETHER = {"tls_cert": ["tls_key"], "tls_key": ["tls_cert"], "metrics_auth": ["api_keys_file"]}


# From the program's own list: {name: default} and {name: section} of every option.
SAMPLE = vramd("serve", "--print-sample").stdout
DEFAULTS = dict(re.findall(r"^#(\w+) = ?(.*)$", SAMPLE, re.M))
SECTION = {name: part.split("]")[0] for part in SAMPLE.split("\n[")[1:] for name in re.findall(r"^#(\w+) =", part, re.M)}
LIVE = {"log_level", "ollama_api", "log_requests", "drain_grace", "drain_timeout", "request_timeout", "metrics_auth", "cors_origins", "trust_request_chat_template"}  # and memory: test_memory_resize.py


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    os.mkfifo(folder / "pressure")  # a kernel need not have any for memory_pressure = psi
    cert, key, keys = folder / "c.pem", folder / "c.key", folder / "keys"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    key.chmod(0o600)
    keys.write_text(vramd("key", "alice").stdout)
    keys.chmod(0o600)
    template = folder / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("MEMORY_PRESSURE_WATCH", str(folder / "pressure"))
        yield {"template": str(template), "cert": str(cert), "key": str(key), "keys": str(keys), "steps": str(folder / "steps"), "draft": MODEL}


def other(name, files):
    """A value that is not the default."""
    if name in CHOSEN:
        return CHOSEN[name].format(**files)
    default = DEFAULTS[name]
    if default in ("true", "false"):
        return "false" if default == "true" else "true"
    m = re.fullmatch(r"(\d+)(\w*)", default)
    assert m, f"{name}: choose a value for this new option in CHOSEN"
    return f"{int(m[1]) + 3}{m[2]}"


def both(values):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return vramd("plan", "--json", *flags, MODEL), vramd("serve", "--check", "--model", MODEL, *flags)


def totals(values):
    """The total bytes of plan and of serve --check with these options."""
    plan, check = both(values)
    assert plan.returncode == check.returncode == 0, (plan.stderr, check.stderr)
    return json.loads(plan.stdout)["total_bytes"], int(re.search(r"^# fits: (\d+) bytes", check.stdout, re.M)[1])


@pytest.mark.parametrize("name", [n for n in DEFAULTS if n not in NO_VALUE])
def test_plan_is_the_plan_of_serve(name, files):
    values = {n: other(n, files) for n in [name, *TOGETHER.get(name, [])]}
    assert values[name] != DEFAULTS[name]
    plan, check = totals({**BASE, **values})
    assert plan == check


def test_plan_is_the_plan_of_serve_with_tls_keys_and_many_connections(files):
    bare, tls = {**BASE, "max_connections": "2000"}, {"tls_cert": files["cert"], "tls_key": files["key"]}
    plain, check = totals(bare)
    with_tls, check_tls = totals({**bare, **tls, "api_keys_file": files["keys"]})
    assert plain == check and with_tls == check_tls
    assert with_tls - plain >= 2000 * 32 * 1024


def test_plan_refuses_what_serve_refuses():
    plan, check = both({**BASE, "host_memory": "300MiB"})
    assert plan.returncode == check.returncode == 2
    assert untimed(plan.stderr).replace("vramd plan:", "vramd serve:") == untimed(check.stderr)


def write(conf, values):
    conf.write_text("".join(f"[{SECTION[n]}]\n{n} = {v}\n" for n, v in values.items()))


def hangup(d, n):
    """Sends the n-th SIGHUP; what the log says of it: {option: (was, now, whether it takes a restart)}."""
    before = len(d.text())
    d.process.send_signal(signal.SIGHUP)
    d.wait_log(r"(?s)(reload: \d+ tenants.*){%d}" % n)
    changes = re.findall(r'reload: (\w+) has changed from "(.*)" to "(.*)"(: that takes a restart)?$', d.text()[before:], re.M)
    return {name: (was, now, bool(restart)) for name, was, now, restart in changes}


def live_behaviour(d, key, max_tokens):
    """What each live option but log_requests, drain_grace and drain_timeout does, seen from outside."""
    auth = {"Authorization": f"Bearer {key}"}
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    before = len(d.text())
    d.http.get("/health", headers={"X-Request-Id": "probe"})
    body = {"prompt": "Count:", "max_tokens": max_tokens, "ignore_eos": True}
    slow = d.http.post("/v1/completions", headers=auth, json=body)
    return {"log_level": "id=probe" in d.text()[before:],
            "request_timeout": slow.json()["choices"][0]["stop_reason"] == "timeout",
            "trust_request_chat_template": d.http.post("/apply-template", headers=auth, json={
                "messages": [{"role": "user", "content": "a"}], "chat_template": "x"}).status_code == 200,
            "metrics_auth": d.http.get("/metrics").status_code == 401,
            "cors_origins": "access-control-allow-origin" in d.http.options("/v1/completions", headers=preflight).headers}


def test_sighup_changes_what_it_reports_and_nothing_else(files, tmp_path):
    conf, keys = tmp_path / "vramd.conf", tmp_path / "keys"
    made = vramd("key", "bob")
    key = made.stderr.split()[-1]
    keys.write_text(made.stdout)
    keys.chmod(0o600)
    started = {**BASE, "api_keys_file": str(keys), "threads": "1"}
    write(conf, started)
    d = Daemon("--config", str(conf))  # and --model and --port, which nothing in the file changes
    try:
        card = d.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).json()
        memory = d.http.get("/v1/memory", headers={"Authorization": f"Bearer {key}"}).json()
        assert not any(live_behaviour(d, key, 8).values())
        changed = {n: other(n, files) for n in DEFAULTS if n not in ("model", "port", "host_memory", "memory", "log_requests")}
        write(conf, changed)
        said = hangup(d, 1)
        assert said == {n: (started.get(n, DEFAULTS[n]), v, n not in LIVE) for n, v in changed.items()}
        behaviour = live_behaviour(d, key, 450)
        assert all(behaviour.values()), behaviour
        assert d.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).json()["data"][0]["id"] == card["data"][0]["id"]
        now = d.http.get("/v1/memory", headers={"Authorization": f"Bearer {key}"}).json()
        assert now["plan_bytes"] == memory["plan_bytes"] and now["budget_bytes"] == memory["budget_bytes"]

        write(conf, {**started, **{n: changed[n] for n in LIVE - {"log_requests"}}, "log_requests": "false"})
        assert hangup(d, 2) == {"log_requests": ("true", "false", False)}
        d.http.get("/health", headers={"X-Request-Id": "unlogged"})
        assert "id=unlogged" not in d.text()
        assert hangup(d, 3) == {} and d.text().count("reload: no option has changed") == 1
        d.process.send_signal(signal.SIGTERM)
        d.wait_log("draining: no new requests; running ones have 33 s")
    finally:
        d.stop()
