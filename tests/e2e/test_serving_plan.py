"""`vramd plan` plans what `vramd serve` takes, under every option."""

import json
import re
import subprocess

import pytest

from harness import MODEL, vramd

BASE = {"max_model_len": "512", "max_num_seqs": "4", "max_num_batched_tokens": "64"}
# A value other than the default for each option that a rule cannot choose: texts, and numbers with a narrow meaning.
CHOSEN = {"served_model_name": "other", "host": "::1", "api_keys_file": "{keys}", "tls_cert": "{cert}",
          "tls_key": "{key}", "cors_origins": "https://a.example", "memory": "400MiB",
          "cuda_plugin": "/nonexistent.so", "cuda_device": "1", "max_model_len": "1024", "request_memory": "24MiB",
          "kv_cache_tokens": "4096", "block_size": "32", "backend": "cpu", "cpu_isa": "plain", "activation_dtype": "f32",
          "kv_cache_dtype": "f32", "threads": "3", "max_num_seqs": "8", "max_num_batched_tokens": "128"}
NO_VALUE = ("model", "host_memory")  # in every call; refused by both without a device, see below
TOGETHER = {"tls_cert": ["tls_key"], "tls_key": ["tls_cert"], "metrics_auth": ["api_keys_file"]}


def table():
    """{name: default} of every option, from the program's own list."""
    sample = vramd("serve", "--print-sample").stdout
    return dict(re.findall(r"^#(\w+) = ?(.*)$", sample, re.M))


DEFAULTS = table()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    cert, key, keys = folder / "c.pem", folder / "c.key", folder / "keys"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    key.chmod(0o600)
    keys.write_text(vramd("key", "alice").stdout)
    keys.chmod(0o600)
    return {"cert": str(cert), "key": str(key), "keys": str(keys)}


def other(name, files):
    """A value that is not the default."""
    if name in CHOSEN:
        return CHOSEN[name].format(**files)
    default = DEFAULTS[name]
    if default in ("true", "false"):
        return "false" if default == "true" else "true"
    m = re.fullmatch(r"(\d+)(\w*)", default)
    if m:
        return f"{int(m[1]) + 3}{m[2]}"
    assert name == "log_level", f"{name}: choose a value for this new option in CHOSEN"
    return "error"


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
    assert plan.stderr.replace("vramd plan:", "vramd serve:") == check.stderr
