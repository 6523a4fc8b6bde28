"""The journal of a run that trains on a node: what is written goes to the experiment's process, with its files."""

from pathlib import Path

from pipeline.cluster.link import Link
from pipeline.tracking.journal import CONFIG, Journal, RunFolder
from pipeline.tracking.lines import Event
from pipeline.tracking.uploader import Uploader


class RemoteJournal(Journal):
    """A journal whose other copy, in the experiment's process, is the one that counts.

    The one here lies in a scratch folder, for whoever reads the run's own record while it trains.
    """

    def __init__(self, folder: RunFolder, link: Link) -> None:
        super().__init__(folder)
        self.link = link

    def _write(self, event: Event) -> None:
        self.link.send_files(_files_of(self.folder, event), event=event)
        super()._write(event)

    def _sync(self, file: int) -> None:
        """Nothing: what is here need not outlive the node."""


def _files_of(folder: RunFolder, event: Event) -> list[tuple[str, Path]]:
    """What an event speaks of: names in the run's folder, and where they lie here."""
    paths: list[Path] = []
    if event["kind"] == "artifact":
        path = folder.artifacts / event["path"]
        paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        if event["path"] == CONFIG:
            paths.append(folder.path / CONFIG)
    elif event["kind"] == "model":
        paths = [folder.path / event["network"], folder.path / event["example"]]
    return [(str(path.relative_to(folder.path)), path) for path in paths]


class Unheard(Uploader):
    """No uploader: the experiment's process has it."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder, -1)

    def notify(self) -> None:
        """Nothing: who writes the record says so."""
