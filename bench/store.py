#!/usr/bin/env python3
"""Runs a benchmark written in C that prints or writes {"rows": [...]} and stores the rows:
store.py NAME PROGRAM [OPTIONS]"""

import sys

from bench_common import *

name, command = sys.argv[1], sys.argv[2:]
status = 0
if name.startswith("linear"):
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        status = subprocess.run(command + ["--json", f.name]).returncode # 1: a bar is missed
        if status not in (0, 1):
            sys.exit(f"{command[0]} ended with {status}")
        doc = json.load(f)
else:
    doc = json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)
save(name, doc["rows"])
sys.exit(status)
