import shutil
import sys
import tempfile
import pathlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def folder():
    """A short path: a socket's name has at most 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="bl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
