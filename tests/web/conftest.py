import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import Daemon  # noqa: E402

OPTIONS = ["--max-model-len", "1024", "--max-num-seqs", "32", "--memory", "600MiB", "--memory-max", "640MiB"]


def pytest_collection_modifyitems(items):
    from browser import why_not
    if reason := why_not():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def daemon():
    d = Daemon(*OPTIONS)
    yield d
    d.stop()


@pytest.fixture(scope="session")
def chromium():
    from browser import Browser
    b = Browser()
    yield b
    b.close()


@pytest.fixture
def page(chromium):
    """The browser, 1280 x 900 and light; at the end nothing may be in its console, and it may have asked no other host."""
    chromium.size(1280, 900)
    chromium.dark(False)
    chromium.errors()
    chromium.requests()
    chromium.allowed = ()  # parts of console messages that a test causes on purpose
    yield chromium
    errors = [e for e in chromium.errors() if not any(part in e for part in chromium.allowed)]
    asked = chromium.requests()
    chromium.driver.get("about:blank")
    assert errors == []
    assert [u for u in asked if not u.startswith(("http://127.0.0.1:", "data:", "about:"))] == []
