"""What a person sees of an experiment while it trains: what is done, running and to come, and how long it may take."""

import sys
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from pipeline.experiments.pool import Child

GUESSED_OVERHEAD_S = 6.0
REFRESH_PER_S = 2


class Progress:
    """A live view in a terminal, a line per ended run elsewhere."""

    def __init__(self, name: str, children: list[Child], jobs: int) -> None:
        self.name, self.children, self.jobs = name, children, jobs
        self.began = time.monotonic()
        self.found = sum(child.state in ("finished", "diverged") for child in children)
        self.live: Live | None = None

    def __enter__(self) -> "Progress":
        resumed = sum(child.state == "interrupted" for child in self.children)
        words = [f"{self.name}: {len(self.children)} runs", f"{self.jobs} at a time"]
        words += [f"{self.found} finished before"] if self.found else []
        words += [f"{resumed} to be resumed"] if resumed else []
        print(", ".join(words), flush=True)
        if sys.stdout.isatty():
            console = Console()
            self.live = Live(self._view(), console=console, refresh_per_second=REFRESH_PER_S, get_renderable=self._view)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def changed(self, child: Child) -> None:
        if self.live is None and child.ended:
            print(self._line(child), flush=True)

    def _line(self, child: Child) -> str:
        ended = sum(each.ended for each in self.children)
        what = f"val_accuracy {child.accuracy:.4f}" if child.accuracy is not None else ""
        what = f"failed: {child.reason}" if child.state == "failed" else what
        what = child.reason.partition(";")[0] if child.state == "diverged" else what
        left = f" - about {duration(self.remaining_s())} left" if ended < len(self.children) else ""
        count = f"{ended:{len(str(len(self.children)))}}/{len(self.children)}"
        return f"{count} {child.name} - {child.seconds:.0f} s - {what}{left}"

    def remaining_s(self) -> float:
        """An estimate from the epochs and the ended runs of this session."""
        seconds = [second for child in self.children for second in child.epoch_seconds]
        if not seconds:
            return 0.0
        mean = sum(seconds) / len(seconds)
        ended = [child for child in self.children if child.state == "finished" and child.seconds]
        overheads = [max(0.0, child.seconds - sum(child.epoch_seconds)) for child in ended]
        overhead = sum(overheads) / len(overheads) if overheads else GUESSED_OVERHEAD_S
        left = 0.0
        for child in self.children:
            if not child.ended:
                alike = [s for each in self.children if each.variant == child.variant for s in each.epoch_seconds]
                per_epoch = sum(alike) / len(alike) if alike else mean
                left += (child.config.epochs - child.epochs_done) * per_epoch + overhead
        return left / self.jobs

    def _view(self) -> Group:
        counts = {
            state: sum(child.state == state for child in self.children)
            for state in ("finished", "diverged", "failed", "running")
        }
        to_come = len(self.children) - sum(counts.values())
        failed = f", [red]{counts['failed']} failed[/red]" if counts["failed"] else ""
        diverged = f", {counts['diverged']} diverged" if counts["diverged"] else ""
        passed = duration(time.monotonic() - self.began)
        head = (
            f"[bold]{escape(self.name)}[/bold]  {counts['finished']} finished{diverged}{failed}, "
            f"{counts['running']} running, "
            f"{to_come} to come"
            f"  [dim]{passed} so far, about {duration(self.remaining_s())} left[/dim]"
        )
        lines: list[RenderableType] = []
        for child in self.children:
            if child.state == "running":
                accuracy = f" - val_accuracy: {child.accuracy:.4f}" if child.accuracy is not None else ""
                at = min(child.epochs_done + 1, child.config.epochs)
                lines.append(Text(f"{child.name}  Epoch {at}/{child.config.epochs}{accuracy}"))
                lines += [child.line] if child.line else []
        return Group(Text.from_markup(head), *lines)


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
