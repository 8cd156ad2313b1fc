import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "golden")]


def pytest_configure(config):
    config.addinivalue_line("markers", "every_level: a promise of equal bytes: tested at each level of the CPU's vector instructions (tests/levels.sh)")


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


def make_in(root, *targets):
    """make, of what is built, with DESTDIR=root and PREFIX=/usr."""
    import harness
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "T", "O", "SAN")}
    cuda = (harness.BUILD / "libblipline-cuda.so").exists()
    subprocess.run(["make", "--no-print-directory", "-C", str(harness.ROOT), "-o", "build", f"O={harness.BUILD}", f"DESTDIR={root}", "PREFIX=/usr", f"CUDA={cuda:d}", *targets],
                   env=env, check=True, timeout=300, capture_output=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder that a copy was installed in, as PREFIX."""
    root = tmp_path_factory.mktemp("installed")
    make_in(root, "install")
    return root / "usr"
