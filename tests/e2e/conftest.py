import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "golden")]


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "every_level: a promise of equal bytes: tested at each level of the CPU's vector instructions"
        " (tests/levels.sh)",
    )


@pytest.fixture(autouse=True)
def nothing_for_a_sanitizer_to_report():
    """A daemon that ends a little later than its test fails the next one."""
    import harness
    yield
    found = harness.sanitizer_reports()
    if found:
        pytest.fail(found, pytrace=False)


LATE = []  # sanitizer reports that the workers of pytest-xdist found last


def pytest_testnodedown(node):
    LATE.append(getattr(node, "workeroutput", {}).get("late", ""))


@pytest.hookimpl(trylast=True)  # if a test is interrupted, its fixtures end in this hook
def pytest_sessionfinish(session):
    """The reports of daemons that outlived the last test. A worker hands them to the session that started it."""
    harness = sys.modules.get("harness")
    found = "".join(LATE) + (harness.sanitizer_reports() if harness else "")
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["late"] = found
    elif found:
        print(found)
        session.exitstatus = 1
    if harness and not found:
        shutil.rmtree(harness.REPORTS, ignore_errors=True)


@pytest.fixture
def folder():
    """A short path: a socket's name has at most 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="bl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once(name, make): a folder that make(folder) has filled, once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name, make):
        path, done = base / name, base / f"{name}.done"
        with open(base / f"{name}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                make(path)
                done.touch()
        return path
    return folder_of


def make_in(root, *targets):
    """make, of what is built, with DESTDIR=root and PREFIX=/usr."""
    import harness
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "T", "O", "SAN")}
    cuda = (harness.BUILD / "libblipline-cuda.so").exists()
    subprocess.run(
        [
            "make", "--no-print-directory", "-C", str(harness.ROOT), "-o", "build", f"O={harness.BUILD}",
            f"DESTDIR={root}", "PREFIX=/usr", f"CUDA={cuda:d}", *targets,
        ],
        env=env, check=True, timeout=300, capture_output=True,
    )


@pytest.fixture(scope="session")
def installed(made_once):
    """The folder that a copy was installed in, as PREFIX."""
    return made_once("installed", lambda root: make_in(root, "install")) / "usr"
