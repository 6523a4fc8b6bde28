"""How an epoch goes, as Keras' `verbose=1` shows it: steps, a bar, loss and accuracy on the way."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

BAR = 20  # characters, Keras' own
FIRST = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
UNSHOWN = ("epoch_seconds", "time_ms")


@dataclass
class EpochLine:
    """`120/469 ━━━━━━━━━━━━━━━━━━━━ 1s 4ms/step - loss: 0.4321 - accuracy: 0.8754`, as wide as there is room.

    Attributes:
        steps: of the whole epoch.
        began: `time.perf_counter()` at its beginning.
        values: name -> mean so far, in the order shown.
        seconds: of the whole epoch once it has ended.
        indent: words in front, of an experiment's run.
    """

    steps: int
    done: int = 0
    began: float = field(default_factory=time.perf_counter)
    values: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    indent: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line for this terminal; while the epoch goes on it is never wider than that."""
        yield self.text(options.max_width, ascii_only=options.ascii_only)

    def text(self, width: int, ascii_only: bool = False) -> Text:
        """The line for so many columns: the bar shrinks first, then the time of a step goes, then the end is cut."""
        seconds = time.perf_counter() - self.began if self.seconds is None else self.seconds
        count = f"{self.indent}{self.done:{len(str(self.steps))}}/{self.steps} "
        values = "".join(f" - {name}: {in_words(name, value)}" for name, value in self.values.items())
        left = seconds / self.done * (self.steps - self.done) if self.done and self.seconds is None else seconds
        speed = f" {_step_time(seconds / self.done)}" if self.done else ""
        room = width - len(count) - len(values) - 4 - len(speed)
        if room < 4 and self.seconds is None:
            room, speed = room + len(speed), ""
        bar = min(BAR, room) if room >= 4 else 0
        full = bar * self.done // max(1, self.steps)
        stroke, rest = ("=", ".") if ascii_only else ("━", "━")
        line = Text(no_wrap=self.seconds is None, overflow="ellipsis" if self.seconds is None else "fold")
        line.append(count)
        line.append(stroke * full, "green").append(rest * (bar - full), "bright_black")
        line.append(f" {left:.0f}s{speed}{values}" if bar else f"{left:.0f}s{speed}{values}")
        return line


def in_order(metrics: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's line shows of its metrics: losses and accuracies, then what else was measured, by stage."""
    further = sorted(metrics, key=lambda name: (not name.startswith("train_"), not name.startswith("val_")))
    return {name: metrics[name] for name in (*FIRST, *further) if name not in UNSHOWN}


def in_words(name: str, value: float) -> str:
    """A metric's value: four places, or as many digits as tell a small rate."""
    return f"{value:.3g}" if name == "learning_rate" else f"{value:.4f}"


def _step_time(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"


class EpochBar:
    """The bar of one training: `Epoch 1/20`, its line while it goes on, and the finished line left standing.

    Elsewhere than in a terminal only the finished lines are written.
    """

    def __init__(self, epochs: int, console: Console | None = None) -> None:
        self.epochs, self.console = epochs, console or Console(highlight=False)
        self.line: EpochLine | None = None
        self._live: Live | None = None

    def __enter__(self) -> "EpochBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back; an epoch that was broken off keeps its line."""
        self._stop()

    def step(self, epoch: int, done: int, steps: int, values: dict[str, float]) -> None:
        """So many of the epoch's steps are done, with these means so far; 0: it begins."""
        if self.line is None:
            self._stop()
            self.console.print(f"Epoch {epoch}/{self.epochs}")
            self.line = EpochLine(steps)
            if self.console.is_terminal and not self.console.is_dumb_terminal:
                self._live = Live(self.line, console=self.console, auto_refresh=False, vertical_overflow="visible")
                self._live.start()
        self.line.done, self.line.values = done, values
        if self._live:
            self._live.refresh()

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        line = self.line or EpochLine(0)
        line.done, line.seconds = line.steps, metrics["epoch_seconds"]
        line.values = {name.removeprefix("train_"): value for name, value in in_order(metrics).items()}
        if self._live:
            self._stop()
        else:
            self.console.print(line)
        self.line = None

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
