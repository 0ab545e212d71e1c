"""The worked example of docs/memory.md can be repeated: its commands print what stands there, but for the figures."""

import json
import re
import shutil

import pytest

from harness import SANITIZED
from memory_example import PAGE, run, split, steps


def shape(text):
    """Without the size of numbers: 0, or not."""
    return re.sub(r"\d[\d,.]*", lambda m: "0" if m[0] == "0" else "N", text)


@pytest.mark.skipif(not shutil.which("jq") or not shutil.which("curl"), reason="the example takes curl and jq")
def test_the_worked_example_prints_what_the_page_says():
    example = steps(split(PAGE.read_text())[1])
    printed, log = run([c for c, _ in example])
    for (command, expected), got in zip(example, printed, strict=True):
        assert shape("".join(f"    {line}\n" for line in got.splitlines())) == shape(expected), (command, log)
    by_command = {}
    for (command, _), got in zip(example, printed):
        by_command.setdefault(command, []).append(got)
    (first,), (small,), (large,) = by_command["account"], by_command["budget 260000000"], by_command["budget 440000000"]
    first, small, large = map(json.loads, (first, small, large))
    rested, after = json.loads(by_command["sleep 7; account"][0]), json.loads(by_command["ask; settled"][0].splitlines()[1])
    for a in (first, small, large, rested, after):
        assert a["ledger"] <= a["plan"] <= a["budget"], a
        assert SANITIZED or abs(a["kernel"] - a["ledger"]) <= (4 << 20) + a["ledger"] // 500, a
    assert SANITIZED or small["kernel"] < first["kernel"] - (100 << 20) and large["kernel"] > first["kernel"]
    assert SANITIZED or rested["kernel"] < first["kernel"] - (100 << 20)
    assert small["blocks"] < first["blocks"] < large["blocks"] and rested["blocks"] < first["blocks"] == after["blocks"]
    answers = [json.loads(x) for x in by_command["ask"]]
    assert len({a["text"] for a in answers}) == 1 and [a["cached"] > 0 for a in answers] == [False, True, True]
