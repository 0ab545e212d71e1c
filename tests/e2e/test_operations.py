"""What docs/operations.md, the dashboard and the alerts name must exist: metrics, options, messages."""

import json
import os
import re

from harness import MODEL, ROOT, vramd

DOCS = ROOT / "docs"
NAME = re.compile(r"\b(?:vramd_[a-z0-9_]+|vllm:[a-z0-9_]+)\b")


def samples(daemon):
    """{name: {label names}} of all that /metrics gives after a request."""
    daemon.say("The capital of France is", max_tokens=4)
    found = {}
    for line in daemon.http.get("/metrics").text.splitlines():
        if m := re.match(r"([a-z0-9_:]+)\{(.*)\} ", line):
            found.setdefault(m[1], set()).update(re.findall(r'(\w+)="', m[2]))
    return found


def check_expression(expr, found):
    names = NAME.findall(expr)
    assert names or expr.startswith("up{"), expr
    for name in names:
        assert name in found, f"{name}: not in /metrics ({expr})"
    known = set().union(*(found[n] for n in names)) | {"instance", "job"}
    for group in re.findall(r"\b(?:by|on) \(([\w, ]+)\)", expr) + re.findall(r"\{([^}]*)\}", expr):
        for label in re.findall(r"(\w+)(?:=~?\"[^\"]*\")?(?:,|$)", group.replace(", ", ",")):
            assert label in known, f"{label}: no label of {names} ({expr})"


def test_every_panel_shows_metrics_that_exist(daemon):
    found = samples(daemon)
    board = json.loads((DOCS / "dashboard.json").read_text())
    expressions = [t["expr"] for p in board["panels"] for t in p["targets"]]
    assert len(expressions) > 20
    for e in expressions:
        check_expression(e, found)
    for panel in board["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"\b{label}\b", target["expr"]) or "sum" not in target["expr"], (label, target)
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])


def test_every_alert_watches_metrics_that_exist(daemon):
    found = samples(daemon)
    expressions = re.findall(r"^ +expr: (.*)$", (DOCS / "alerts.yml").read_text(), re.M)
    assert len(expressions) >= 8
    for e in expressions:
        check_expression(e, found)


def test_the_guide_names_what_exists(daemon):
    found = samples(daemon)
    text = (DOCS / "operations.md").read_text()
    names = [n for n in NAME.findall(text) if not re.search(rf"{n}[0-9.]*_amd64", text)]
    for name in names:  # energy: only where the processor's counters can be read (tests/api/test_metrics.c)
        assert any(f.startswith(name) for f in found) or name == "vramd_energy_joules_total", name
    options = set(re.findall(r"^#(\w+) =", vramd("serve", "--print-sample").stdout, re.M))
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", text):
        assert name in options or name.startswith("vramd_") or name.endswith("_error"), name
    for command, flag in re.findall(r"vramd (plan|serve|top|eval|generate|bench)\b[^|\n`]*?(--[a-z-]+)", text):
        assert flag in vramd(command, "--help").stdout, (command, flag)


def test_requests_in_the_guide_send_the_key_that_it_asks_for():
    text = (DOCS / "operations.md").read_text()
    requests = re.findall(r"^    \$ curl http.*\n(?:     .*\n)*", text.split("## 5.")[0], re.M)
    assert len(requests) == 2 and all("Authorization: Bearer $KEY" in r for r in requests), requests


def test_the_messages_in_the_guide_are_those_of_the_program(daemon, tmp_path):
    file, cut = tmp_path / "vramd.conf", tmp_path / "cut.gguf"
    open_to_all = tmp_path / "keys"
    open_to_all.write_text("")
    open_to_all.chmod(0o644)
    tensors = tmp_path / "model.safetensors"
    tensors.write_bytes(b"\x40" + bytes(7) + b'{"a":{}}')
    cut.write_bytes(open(MODEL, "rb").read(100000))

    def serve(*options, conf="", **env):
        file.write_text(conf)
        r = vramd("serve", "--config", str(file), *options, env={**os.environ, **env})
        assert r.returncode, options
        return r.stderr

    said = [
        serve(),
        serve("--model", str(tmp_path / "absent.gguf")),
        serve("--model", str(tmp_path)),
        serve("--model", str(tensors)),
        serve("--model", MODEL, "--memory", "10"),
        serve("--model", MODEL, "--memory", "100MiB"),
        serve("--model", MODEL, "--memory", "900TiB"),
        serve("--model", MODEL, "--max-model-len", "1000000"),
        serve("--model", MODEL, "--max-model-len", "256", "--port", str(daemon.port)),
        serve(conf="[server]\nprot = 1\n"),
        serve(conf="[model]\nport = 1\n"),
        serve(VRAMD_PORT="tcp://10.0.0.1:8000"),
        serve("--model", str(cut)),
        serve("--model", MODEL, "--max-model-len", "256", "--port", "0", "--api-keys-file", str(open_to_all)),
        serve("--model", MODEL, "--backend", "cuda", "--cuda-plugin", str(tmp_path / "vramd-cuda.so")),
    ]
    rows = (DOCS / "operations.md").read_text().split("| message |")[1].splitlines()[2:]
    spans = [s for row in rows for s in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    # As root nothing is denied; the others are of a cgroup, of systemd and of HTTP.
    elsewhere = ("Permission denied", "for the kernel, has", "_error", "KILL", "oom-kill")
    for span in spans:
        pattern = re.escape(span).replace(re.escape("..."), ".*")
        assert any(re.search(pattern, text) for text in said) or span.endswith(elsewhere), span
