"""Who listens decides nothing: closed, full, gone and ASCII outputs."""

import subprocess
import sys

import pytest

from pipeline.tracking.folders import all_folders
from tests.conftest import environment

PRINTS = (
    "import os, sys; from pipeline.terminal.outputs import make_safe, write_error; make_safe();"
    "print('first', flush=True); [print('ü' * 999, flush=True) for _ in range(999)];"
    "print('to the error output', file=sys.stderr); number = os.open(os.devnull, 0);"
    "open('reached', 'w').write(f'{number > 2} {write_error()}')"
)


@pytest.mark.parametrize(
    ("redirection", "error"),
    [
        (">&-", ""),
        ("<&- >&- 2>&-", ""),
        ("| head -1 > /dev/null", ""),
        ("> /dev/full", "No space left on device"),
        ("> /dev/full 2>&1", "No space left on device"),
    ],
)
def test_no_print_ends_a_process(tmp_path, redirection, error):
    for variables in ({}, {"PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX"}):
        command = f'"$PYTHON" -c "{PRINTS}" {redirection}'
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(PYTHON=sys.executable, **variables))
        assert (tmp_path / "reached").read_text() == f"True {error}"
        (tmp_path / "reached").unlink()


def test_in_a_file_both_outputs_stand_in_the_order_in_which_they_were_said(tmp_path):
    said = "from pipeline.terminal.outputs import make_safe; import sys; make_safe();"
    said += "print('look'); print('refused', file=sys.stderr); print('again')"
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", said], env=environment(), stdout=log, stderr=log, check=True)
    assert (tmp_path / "log").read_text() == "look\nrefused\nagain\n"


@pytest.mark.usefixtures("own_store")
def test_a_training_that_nobody_listens_to_is_finished_and_ends_well(tmp_path):
    words = "-m pipeline train --dataset digits --epochs 1 --hidden_units 16 --model_name= >&- 2>&-"
    done = subprocess.run(["bash", "-c", f'"$PYTHON" {words}'], cwd=tmp_path, env=environment(PYTHON=sys.executable))
    assert done.returncode == 0
    (folder,) = all_folders(tmp_path / "runs")
    assert folder.ended()["status"] == "FINISHED"
