"""What the faults are held against."""

import pytest

from tests import faults
from tests.conftest import ready_store, run_pipeline


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The full record of a short run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ready_store(folder)
    done = run_pipeline("train", *faults.SHORT, cwd=folder, **faults.THREADS)
    assert done.returncode == 0, done.stderr
    return faults.full_record(faults.store(folder), folder)
