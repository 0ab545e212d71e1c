"""The scripts of tests/clients whose packages are at hand: each check of a script is one line of its output. The others
run by make clients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import OPTIONS, Daemon

CLIENTS = Path(__file__).resolve().parents[1] / "clients"


@pytest.fixture(scope="module")
def tools_daemon():
    """The small model with a template that takes tools."""
    d = Daemon(*OPTIONS, "--chat-template", str(CLIENTS / "tools.jinja"))
    yield d
    d.wait_free()
    d.stop()


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_all_checks_of_the_script_pass(tools_daemon, name):
    model = tools_daemon.client.models.list().data[0].id
    r = subprocess.run([sys.executable, CLIENTS / f"with_{name}.py"], capture_output=True, text=True, timeout=300,
                       env={**os.environ, "VRAMD_URL": tools_daemon.url, "VRAMD_MODEL": model})
    assert r.returncode == 0, r.stdout + r.stderr
