"""docker/: what the Dockerfile and the compose file say agrees with the program. Neither is run here:
docker/run_steps.py does that, as root."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, vramd

spec = importlib.util.spec_from_file_location("run_steps", ROOT / "docker" / "run_steps.py")
run_steps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_steps)


def sample():
    """{option: default} of the program."""
    return dict(re.findall(r"^#(\w+) = ?(.*)$", vramd("serve", "--print-sample").stdout, re.M))


def test_the_image_runs_as_a_user_of_its_own_and_asks_where_it_listens():
    steps = list(run_steps.instructions((ROOT / "docker" / "Dockerfile").read_text()))
    last = {word: rest for word, rest in steps[max(i for i, s in enumerate(steps) if s[0] == "FROM"):]}
    options = sample()
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert last["EXPOSE"] == options["port"]
    health = json.loads(last["HEALTHCHECK"].split(" CMD ", 1)[1])
    for env, url in [({}, f"http://127.0.0.1:{options['port']}/ready"), ({"VRAMD_PORT": "81"}, "http://127.0.0.1:81/ready"),
                     ({"VRAMD_TLS_CERT": "/cert.pem"}, f"https://127.0.0.1:{options['port']}/ready")]:
        command = health[:-1] + ["curl() { for url; do :; done; echo $url; }; " + health[-1]]
        assert subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, check=True).stdout.strip() == url
    for name in re.findall(r"VRAMD_(\w+)=", last["ENV"]):
        assert name.lower() in options
    for word, rest in steps:
        if word in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list)  # no shell between SIGTERM and the server


@pytest.mark.parametrize("linter, file", [("hadolint", "Dockerfile"), ("compose-lint", "compose.yaml")])
def test_the_linters_of_such_files_find_nothing(linter, file):
    r = subprocess.run([Path(sys.executable).parent / linter, ROOT / "docker" / file], text=True, capture_output=True)
    assert r.returncode == 0, r.stdout + r.stderr


def test_the_compose_file_names_options_and_waits_for_the_drain():
    text = (ROOT / "docker" / "compose.yaml").read_text()
    options = sample()
    named = re.findall(r"VRAMD_(\w+):", text)
    assert "MEMORY" in named
    version = (ROOT / "VERSION").read_text().strip()
    assert f"image: vramd:{version}\n" in text
    for name in named:
        assert name.lower() in options
    assert int(re.search(r"stop_grace_period: (\d+)s", text)[1]) > int(options["drain_timeout"])
    assert len(set(re.findall(r"^ +mem(?:swap)?_limit: (.*)$", text, re.M))) == 1
