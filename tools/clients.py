#!/usr/bin/env python3
"""Runs the scripts of tests/clients against a daemon with the test model: what people use with such a server, as they use
it. Each client has a virtual environment of its own in the cache, since their requirements exclude each other.
    tools/clients.py [NAME...]      names: parts of the scripts' names; all without
VRAMD_TEST_MODEL, VRAMD_TEST_OPTIONS (more options of the daemon, as words)
"""

import hashlib
import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("VRAMD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vramd")
sys.path.insert(0, str(ROOT / "tests" / "e2e"))


def python_for(script):
    """The Python of the script's environment, made if its first line is not the one it was made by."""
    needs = script.read_text().splitlines()[0].removeprefix("# pip: ").split()
    home = CACHE / "clients" / f"{script.stem}.{hashlib.sha256(' '.join(needs).encode()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"  installing {' '.join(needs)}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *needs], check=True)
        (home / "ready").touch()
    return python


def main(names):
    from harness import OPTIONS, Daemon
    scripts = sorted(s for s in (ROOT / "tests" / "clients").glob("with_*.py") if not names or any(n in s.stem for n in names))
    if not scripts:
        sys.exit("clients: no script of that name in tests/clients")
    daemon = Daemon(*OPTIONS, "--chat-template", str(ROOT / "tests" / "clients" / "tools.jinja"), "--ollama-api", *shlex.split(os.environ.get("VRAMD_TEST_OPTIONS", "")))
    failed = []
    try:
        env = {**os.environ, "VRAMD_URL": daemon.url, "VRAMD_MODEL": daemon.client.models.list().data[0].id}
        for script in scripts:
            print(script.stem.removeprefix("with_"), flush=True)
            if subprocess.run([python_for(script), script], env=env, timeout=600).returncode:
                failed.append(script.stem)
    finally:
        daemon.stop()
    print(f"clients: {len(scripts) - len(failed)} of {len(scripts)} pass")
    sys.exit(1 if failed else 0)


main(sys.argv[1:])
