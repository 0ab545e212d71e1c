"""The worked example of docs/memory.md: its commands, run in one bash, and what they print.

    memory_example.py --write    puts what they print into the page"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import BINARY, MODEL, ROOT

PAGE = ROOT / "docs" / "memory.md"
TITLE, PORT, MARK = "## A worked example\n", "8000", "end-of-output"


def split(text):
    """The page before the example, it, and the page behind it."""
    start = text.index(TITLE)
    end = text.index("\n## ", start) + 1
    return text[:start], text[start:end], text[end:]


def steps(example):
    """[(command, what it prints according to the page)]"""
    return re.findall(r"^    \$ (.*)\n((?:    (?!\$ ).*\n)*)", example, re.M)


def run(commands):
    """What each prints, in one bash, in a folder that has the model."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(MODEL, Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf")
        env = {**os.environ, "PATH": f"{Path(BINARY).parent}:{os.environ['PATH']}", "VRAMD_PORT": port}
        script = "".join(f"{c.replace(f':{PORT}/', f':{port}/')}\necho {MARK}\n" for c in commands)
        p = subprocess.run(["bash", "-c", f"trap 'kill $! 2> /dev/null' EXIT\n{script}"], cwd=folder, env=env, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=600)
        log = Path(folder, "log")
        log = log.read_text() if log.exists() else ""
    assert p.stdout.count(MARK) == len(commands), p.stdout + log
    return p.stdout.replace(port, PORT).split(f"{MARK}\n")[:-1], log


def write():
    before, example, after = split(PAGE.read_text())
    printed, _ = run([c for c, _ in steps(example)])
    out = iter(printed)
    shown = lambda text: "".join(f"    {line}\n" for line in text.splitlines())
    example = re.sub(r"^(    \$ .*\n)(?:    (?!\$ ).*\n)*", lambda m: m[1] + shown(next(out)), example, flags=re.M)
    PAGE.write_text(before + example + after)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
