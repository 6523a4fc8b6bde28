"""What the faults are held against, and what is cleared up after them."""

import pytest

from tests import faults
from tests.conftest import ready_store, run_pipeline


@pytest.fixture(autouse=True)
def nothing_left():
    """A test that fails leaves no training behind."""
    yield
    faults.end_what_is_left()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The full record of a short run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ready_store(folder)
    done = run_pipeline("train", *faults.SHORT, cwd=folder, **faults.THREADS)
    assert done.returncode == 0, done.stderr
    return faults.full_record(faults.store(folder), folder)
