"""Tables and pictures of an experiment's full records, drawn beside the training by the process that waits for it."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipeline.experiments.trial import Trial, data_of, source_of
from pipeline.recording import drawing
from pipeline.tracking.uploader import Uploader, UploaderProcess


class Artist:
    """Draws one run at a time, in a thread, and has all drawn when it is left."""

    def __init__(self, uploader: UploaderProcess) -> None:
        self.uploader = uploader
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._begun: list[Future[None]] = []

    def __enter__(self) -> "Artist":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the rest; after an error what has not begun is left to the next start."""
        self._thread.shutdown(cancel_futures=error is not None)
        for each in self._begun:
            if not each.cancelled():
                each.result()

    def draw(self, trial: Trial) -> None:
        """Draw a run that is finished, if its record is full and that is still to be done."""
        if trial.state != "finished" or trial.config.record != "full" or trial.folder is None:
            return
        if not drawing.drawn(trial.folder):
            self._begun.append(self._thread.submit(self._draw, trial))

    def _draw(self, trial: Trial) -> None:
        folder = trial.folder
        assert folder is not None
        for problem in drawing.record(folder, lambda: source_of(data_of(trial.config))):
            print(f"warning: {trial.name}: {problem}", file=sys.stderr)
        Uploader(folder, self.uploader.descriptor).notify()
