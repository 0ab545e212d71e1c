"""The Python examples of the pages run as they stand there, but for the address and the model's name."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = [(page.name, i, code) for page in sorted(DOCS.glob("*.md")) if page.name != "tools.md"  # test_tools.py
            for i, code in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))]


def test_there_are_examples():
    assert {"api.md"} <= {page for page, _, _ in EXAMPLES}


@pytest.mark.parametrize("page, i, code", EXAMPLES, ids=[f"{page} {i + 1}" for page, i, _ in EXAMPLES])
def test_an_example_runs_and_prints(daemon, capsys, page, i, code):
    model = daemon.client.models.list().data[0].id
    exec(compile(code.replace("http://127.0.0.1:8080", daemon.url).replace("MODEL", model), f"{page} {i + 1}", "exec"), {})
    assert capsys.readouterr().out.strip()
