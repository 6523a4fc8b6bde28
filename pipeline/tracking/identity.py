"""Which folder a logger's run lies in: one on all ranks of a training, and the same again for a requeued job."""

import contextlib
import datetime
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.tracking.folders import all_folders, copies, find_folder, new_folder
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.provenance import script_tags

FOLDERS = "PIPELINE_LOGGER_FOLDERS"  # number of a logger -> its folder, for the processes that Lightning starts
LONGEST = 1 << 16  # bytes of it: the system starts no process with 128 KiB in one variable
JOB_TAG = "slurm.job"
PATIENCE_S = 60.0

_numbers: Iterator[int] = itertools.count()


def next_number() -> int:
    """The number of a new logger in its process: every rank runs the same script, and so has the same numbers."""
    return next(_numbers)


def chosen(save_dir: Path, experiment_name: str, resume: str, number: int) -> RunFolder:
    """The folder of a logger's run, told to the processes that this one may start to help it.

    Args:
        save_dir: where the runs lie.
        experiment_name: where a new run belongs.
        resume: `last`, name, folder or MLflow run id of a run to go on with; empty: a new one, unless this is a Slurm
            job that was requeued, whose run is then gone on with.
        number: the logger's.

    Raises:
        ValueError: if the run to go on with is not there, or a copy of one that is.
    """
    folder = (
        find_folder(save_dir, resume)
        if resume
        else _requeued(save_dir, experiment_name, number) or new_folder(save_dir)
    )
    _tell({**(_told() if number else {}), str(number): str(folder.path.absolute())})
    return folder


def _tell(folders: dict[str, str]) -> None:
    """Put them where the processes find them that come after; of very many the last ones."""
    while len(told := json.dumps(folders)) > LONGEST:
        del folders[next(iter(folders))]
    os.environ[FOLDERS] = told


def _told() -> dict[str, str]:
    with contextlib.suppress(ValueError):
        return dict(json.loads(os.environ.get(FOLDERS, "{}")))
    return {}


def job_tags(number: int) -> dict[str, str]:
    """The tag by which a requeued Slurm job finds its run again."""
    job = os.environ.get("SLURM_JOB_ID")
    return {JOB_TAG: f"{job}.{number}"} if job else {}


def _requeued(save_dir: Path, experiment_name: str, number: int) -> RunFolder | None:
    """The run of this job and script before the job was requeued, unless it is finished."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    told = job_tags(number) | script_tags()
    folders = all_folders(save_dir)
    copied = copies(folders)
    for folder in reversed(folders):
        start, end = folder.started() or {}, folder.ended() or {}
        same = told.items() <= start.get("tags", {}).items() and start.get("experiment_name") == experiment_name
        if JOB_TAG in told and same and folder.path not in copied:
            return folder if end.get("status") != "FINISHED" else None
    return None


def publish(number: int, folder: RunFolder) -> None:
    """Tell the other ranks, once they can hear it, which folder it is."""
    if store := _store():
        store.set(_key(number), str(folder.path.absolute()))


def learned(number: int) -> RunFolder | None:
    """On another rank: the folder that the first one has chosen; None before anybody can know."""
    if store := _store():
        with contextlib.suppress(RuntimeError):  # the first rank has opened none
            store.wait([_key(number)], datetime.timedelta(seconds=PATIENCE_S))
            return RunFolder(store.get(_key(number)).decode())
    told = _told().get(str(number))
    return RunFolder(told) if told else None


def _key(number: int) -> str:
    return f"pipeline/logger/{number}"


def _store() -> Any:
    """The key-value store of the ranks' process group: unlike a broadcast it needs no other rank to take part."""
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    return torch.distributed.distributed_c10d._get_default_store()
