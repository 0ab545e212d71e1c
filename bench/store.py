#!/usr/bin/env python3
"""Runs a benchmark written in C that prints or writes {"rows": [...]} and stores the rows:
store.py NAME PROGRAM [OPTIONS]"""

import sys

from bench_common import *

name, command = sys.argv[1], sys.argv[2:]
if name == "linear":
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run(command + ["--json", f.name], check=True)
        doc = json.load(f)
else:
    doc = json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)
save(name, doc["rows"])
