import shutil
import sys
import tempfile
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_for_a_sanitizer_to_report():
    """A daemon that ends a little later than its test fails the next one."""
    import harness
    yield
    found = harness.sanitizer_reports()
    if found:
        pytest.fail(found, pytrace=False)


def pytest_sessionfinish(session):
    """Those of daemons that outlived the last test."""
    harness = sys.modules.get("harness")
    found = harness.sanitizer_reports() if harness else ""
    if found:
        print(found)
        session.exitstatus = 1
    elif harness:
        shutil.rmtree(harness.REPORTS, ignore_errors=True)


@pytest.fixture
def folder():
    """A short path: a socket's name has at most 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="bl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
