import pytest

from harness import OPTIONS, Daemon


@pytest.fixture(scope="session")
def daemon():
    """One server for all tests that change nothing about it."""
    d = Daemon(*OPTIONS)
    yield d
    d.wait_free()
    d.stop()
