"""What a person sees of an experiment while it trains: what is done, running and to come, and how long it may take."""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from pipeline.experiments.trial import Trial
from pipeline.values import counted, duration

GUESSED_OVERHEAD_S = 1.0
REFRESH_PER_S = 2


class Progress:
    """A live view in a terminal, a line per ended run elsewhere."""

    def __init__(self, name: str, trials: list[Trial], jobs: int) -> None:
        self.name, self.trials, self.jobs = name, trials, jobs
        self.began = time.monotonic()
        self.found = sum(trial.state in ("finished", "diverged") for trial in trials)
        self.live: Live | None = None

    def __enter__(self) -> "Progress":
        resumed = sum(trial.state == "interrupted" for trial in self.trials)
        words = [f"{self.name}: {counted(len(self.trials), 'run')}", f"{self.jobs} at a time"]
        words += [f"{self.found} finished before"] if self.found else []
        words += [f"{resumed} to be resumed"] if resumed else []
        print(", ".join(words), flush=True)
        if sys.stdout.isatty():
            console = Console()
            self.live = Live(self._view(), console=console, refresh_per_second=REFRESH_PER_S, get_renderable=self._view)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def changed(self, trial: Trial) -> None:
        if self.live is None and trial.ended:
            print(self._line(trial), flush=True)

    def _line(self, trial: Trial) -> str:
        ended = sum(each.ended for each in self.trials)
        what = f"val_accuracy {trial.accuracy:.4f}" if trial.accuracy is not None else ""
        what = f"failed: {trial.reason}" if trial.state == "failed" else what
        what = trial.reason.partition(";")[0] if trial.state == "diverged" else what
        left = f" - about {duration(self.remaining_s())} left" if ended < len(self.trials) else ""
        count = f"{ended:{len(str(len(self.trials)))}}/{len(self.trials)}"
        return f"{count} {trial.name} - {trial.seconds:.0f} s - {what}{left}"

    def remaining_s(self) -> float:
        """An estimate from the epochs and the ended runs of this session."""
        seconds = [second for trial in self.trials for second in trial.epoch_seconds]
        if not seconds:
            return 0.0
        ended = [trial for trial in self.trials if trial.state == "finished" and trial.seconds]
        overheads = [max(0.0, trial.seconds - sum(trial.epoch_seconds)) for trial in ended]
        left = 0.0
        for trial in self.trials:
            if not trial.ended:
                alike = [s for each in self.trials if each.variant == trial.variant for s in each.epoch_seconds]
                left += (trial.config.epochs - trial.epochs_done) * fmean(alike or seconds)
                left += fmean(overheads or [GUESSED_OVERHEAD_S])
        return left / self.jobs

    def _view(self) -> Group:
        counts = Counter(trial.state for trial in self.trials)
        to_come = counts["missing"] + counts["interrupted"]
        failed = f", [red]{counts['failed']} failed[/red]" if counts["failed"] else ""
        diverged = f", {counts['diverged']} diverged" if counts["diverged"] else ""
        passed = duration(time.monotonic() - self.began)
        head = (
            f"[bold]{escape(self.name)}[/bold]  {counts['finished']} finished{diverged}{failed}, "
            f"{counts['running']} running, {to_come} to come"
            f"  [dim]{passed} so far, about {duration(self.remaining_s())} left[/dim]"
        )
        lines: list[RenderableType] = []
        for trial in self.trials:
            if trial.state == "running":
                accuracy = f" - val_accuracy: {trial.accuracy:.4f}" if trial.accuracy is not None else ""
                at = min(trial.epochs_done + 1, trial.config.epochs)
                lines.append(Text(f"{trial.name}  Epoch {at}/{trial.config.epochs}{accuracy}"))
                lines += [trial.line] if trial.line else []
        return Group(Text.from_markup(head), *lines)


def time_spent(trials: Iterable[Trial], jobs: int, seconds: float) -> str:
    """`14 s: 8 s training, 2 runs at a time; 6 s everything else`, of this session."""
    trained = sum(second for trial in trials for second in trial.epoch_seconds) / max(1, jobs)
    if not trained:
        return f"{duration(seconds)}, nothing was trained"
    rest = duration(max(0.0, seconds - trained))
    return (
        f"{duration(seconds)}: {duration(trained)} training, {counted(jobs, 'run')} at a time; {rest} everything else"
    )
