"""Checkpoints as artifacts of a run: what Lightning's ModelCheckpoint keeps is kept in MLflow, the others are deleted.

The uploader may come to a file hours later, when a dead server is back. So each is taken into the run's folder at once,
as a second name of the same file where that stays what it was when ModelCheckpoint puts another in its place: it costs
neither time nor room.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.callbacks import ModelCheckpoint

from pipeline.files import replaced_whole
from pipeline.tracking.folders import tell_once
from pipeline.tracking.lines import Event, as_text
from pipeline.tracking.run import Run

PLACE = "checkpoints"  # below the run's artifacts


class CheckpointArtifacts:
    """The checkpoints that a run has as artifacts, also from before it was resumed."""

    def __init__(self, run: Run, events: Iterable[Event], only_best: bool) -> None:
        self.run, self.only_best = run, only_best
        self._sources: dict[str, Path] = {}  # an artifact's path -> the checkpoint that it is
        for event in events:
            if event["kind"] == "artifact" and "source" in event:
                self._sources[event["path"]] = Path(event["source"])
            elif event["kind"] == "removal":
                self._sources.pop(event["path"], None)

    def take(self, callback: ModelCheckpoint) -> None:
        """Take what the callback has saved since it was last asked."""
        best = callback.best_model_path
        if self.only_best:
            wanted = {best}
        else:
            # The last one is known by no public name if it was saved because of an exception.
            saved = getattr(callback, "_last_checkpoint_saved", "")
            wanted = {best, callback.last_model_path, *callback.best_k_models, saved}
        for checkpoint in sorted(filter(None, wanted)):
            if Path(checkpoint).exists():
                self._take(Path(checkpoint).absolute())
        if self.only_best:
            self._keep({Path(best).absolute()})

    def sweep(self) -> None:
        """Delete what ModelCheckpoint has deleted."""
        self._keep({source for source in self._sources.values() if source.exists()})

    def _keep(self, sources: set[Path]) -> None:
        for name in [name for name, source in self._sources.items() if source not in sources]:
            del self._sources[name]
            with contextlib.suppress(OSError):
                self.run.remove_artifact(self.run.folder.artifacts / name)

    def _take(self, source: Path) -> None:
        name = self._name(source)
        target = self.run.folder.artifacts / name
        if name in self._sources and target.exists() and _is_same(source, target):
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _place(source.resolve(), target)
            self.run.artifact(target, str(source))
        except OSError as error:  # no room: no reason to end a training
            tell_once(f"checkpoint {source.name} was not recorded ({error.strerror})")
        else:
            self._sources[name] = source

    def _name(self, source: Path) -> str:
        """Its name among the artifacts, with its folder's if another checkpoint has the same."""
        name = as_text(source.name)
        short, long = f"{PLACE}/{name}", f"{PLACE}/{as_text(source.parent.name)}/{name}"
        return short if self._sources.get(short, source) == source else long


def _is_same(source: Path, target: Path) -> bool:
    one, other = source.stat(), target.stat()
    return (one.st_mtime_ns, one.st_size) == (other.st_mtime_ns, other.st_size)


def _place(source: Path, target: Path) -> None:
    """Give the file, or each of a folder, a second name there, or where that cannot be a copy."""
    place = _link if _is_replaced_whole(source) else shutil.copy2
    former = target.with_name(f"{target.name}.former")
    with replaced_whole(target) as partial:
        _remove(partial)
        if source.is_dir():
            shutil.copytree(source, partial, copy_function=place)
            _remove(former)
            with contextlib.suppress(FileNotFoundError):
                target.rename(former)  # a folder takes no other's place
        else:
            place(source, partial)
    _remove(former)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_replaced_whole(source: Path) -> bool:
    """Whether the next checkpoint of that name will be another file.

    Lightning writes it in the temporary folder and moves it (fsspec's transaction), which on one disk replaces the file
    and from another disk writes over it, with all its names.
    """
    return Path(tempfile.gettempdir()).stat().st_dev == source.stat().st_dev


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no second names
        shutil.copy2(source, target)
