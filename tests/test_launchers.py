import pytest

from pipeline import cli, launchers
from tests.conftest import run_pipeline


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"},
        {"NODE_RANK": "1"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "mine"},
        {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
        {"JSM_NAMESPACE_RANK": "3"},
    ],
)
def test_what_launchers_leave_behind_is_set_aside_and_said(left, capsys):
    environ = {"HOME": "/home/me", **left}
    launchers.set_launchers_aside(environ)
    assert not set(environ) & set(launchers.FOREIGN)
    assert next(iter(left)).replace("SLURM_JOB_ID", "SLURM_NTASKS") in capsys.readouterr().err
    again = dict(environ) | {"LOCAL_RANK": "1"}  # as Lightning sets it for a helper
    launchers.set_launchers_aside(again)
    assert again["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("torchrun", {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}),
        ("srun", {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}),
    ],
)
def test_several_of_another_launcher_are_refused(name, variables):
    with pytest.raises(ValueError, match=f"started 2 times by {name} .* with --devices N it starts its own processes"):
        launchers.set_launchers_aside(variables)


def test_only_a_process_with_our_run_folder_is_a_helper(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not launchers.is_helper()
    monkeypatch.setenv(launchers.RUN_FOLDER, "/somewhere")
    assert launchers.is_helper()


@pytest.mark.usefixtures("own_store")
def test_a_training_with_a_left_over_rank_is_recorded_whole(tmp_path):
    """LOCAL_RANK=1 made it take itself for a helper; RANK=1 alone made Lightning drop every metric."""
    knobs = ["--dataset", "digits", "--epochs", "1", "--hidden_units", "8", "--model_name", ""]
    done = run_pipeline("train", *knobs, cwd=tmp_path, LOCAL_RANK="1", RANK="1", WORLD_SIZE="2", SLURM_NTASKS="2")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "ignored from the environment: RANK, LOCAL_RANK, WORLD_SIZE, SLURM_NTASKS" in done.stderr
    (journal,) = tmp_path.glob("runs/*/journal.jsonl")
    assert "val_accuracy" in journal.read_text()


def test_cli_sets_them_aside_before_anything_trains(monkeypatch, capsys):
    for name in (launchers.OURS, *launchers.FOREIGN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.main(["train", "--epochs", "1"]) == 2
    assert "started 4 times by torchrun" in capsys.readouterr().err
