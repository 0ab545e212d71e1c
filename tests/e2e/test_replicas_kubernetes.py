"""The manifests of deploy/kubernetes: their schema, and that they name paths, ports and options of the daemon."""

import re

import pytest
import yaml

from harness import ROOT, vramd

FOLDER = ROOT / "deploy/kubernetes"


def documents():
    return {(d["kind"], path.name): d for path in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text())}


def test_kubernetes_own_kinds_follow_its_schema():
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for (kind, _), doc in documents().items():
        if kind in ("Deployment", "Service", "PodDisruptionBudget"):
            validate.validate(doc, "1.31", strict=True)


def test_probes_ports_and_options_are_those_of_the_daemon(daemon):
    docs = {kind: d for (kind, _), d in documents().items()}
    pod = docs["Deployment"]["spec"]["template"]
    container, = pod["spec"]["containers"]
    port, = container["ports"]
    assert port["containerPort"] == 8000 and "#port = 8000" in vramd("serve", "--print-sample").stdout
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] == port["name"] and daemon.http.get(get["path"]).status_code == 200
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    options = re.findall(r"^#(\w+) =", vramd("serve", "--print-sample").stdout, re.M)
    env = {e["name"]: e["value"] for e in container["env"]}
    assert all(name.removeprefix("VRAMD_").lower() in options for name in env), env
    assert pod["spec"]["terminationGracePeriodSeconds"] > int(env["VRAMD_DRAIN_GRACE"]) + int(env["VRAMD_DRAIN_TIMEOUT"])
    # Longer than readiness needs to fail: no request is sent to a replica that has stopped accepting.
    ready = container["readinessProbe"]
    assert int(env["VRAMD_DRAIN_GRACE"]) >= 5 * ready["periodSeconds"] * ready["failureThreshold"]
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    assert env["VRAMD_MODEL"].startswith(container["volumeMounts"][0]["mountPath"] + "/")


def test_the_kinds_agree_with_each_other():
    docs = {kind: d for (kind, _), d in documents().items()}
    labels = docs["Deployment"]["spec"]["template"]["metadata"]["labels"]
    container, = docs["Deployment"]["spec"]["template"]["spec"]["containers"]
    selectors = [docs[k]["spec"]["selector"]["matchLabels"] for k in ("Deployment", "PodDisruptionBudget", "InferencePool", "PodMonitor")]
    assert all(s == labels for s in selectors + [docs["Service"]["spec"]["selector"]])
    assert docs["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert docs["InferencePool"]["spec"]["targetPorts"] == [{"number": container["ports"][0]["containerPort"]}]
    endpoint, = docs["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == container["ports"][0]["name"] and endpoint["path"] == "/metrics"
    backend, = docs["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
    assert (backend["kind"], backend["name"]) == ("InferencePool", docs["InferencePool"]["metadata"]["name"])
    assert backend["group"] == docs["InferencePool"]["apiVersion"].split("/")[0]
