"""`figures`: the pictures and tables of runs, drawn when somebody asks, and recorded with the run."""

import sys

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import DONE, NOT_ALL, home, shown
from pipeline.tracking.journal import RunFolder


def main(parser: Parser, arguments: list[str]) -> int:
    parser.with_runs_dir().add_argument(
        "runs", nargs="+", metavar="RUN", type=home, help="`last`, a run folder, name or MLflow run id"
    )
    parser.add_argument("--data_dir", type=home, help="where the data lies now (default: where the run found it)")
    options = parser.read(arguments)
    from pipeline.delivery.sync import sync
    from pipeline.recording.resuming import recorded_config
    from pipeline.tracking.folders import find_folder

    folders = [find_folder(options.runs_dir, run) for run in options.runs]
    for folder in folders:
        recorded_config(folder)  # says whose it is, if it is no training of ours
    drawn = [_draw(folder, options.data_dir) for folder in folders]
    return sync([str(folder.path) for folder in folders], options.runs_dir) or (DONE if all(drawn) else NOT_ALL)


def _draw(folder: RunFolder, data_dir: str | None) -> bool:
    """Draw what the run's record gives, and record it; returns whether that is everything."""
    from pipeline.recording import drawing
    from pipeline.tracking import recovery

    recovery.mark_if_dead(folder)
    try:
        problems = drawing.record(folder, lambda: drawing.data_of(folder, data_dir))
    except OSError as error:
        raise ValueError(f"run folder {shown(folder.path)} cannot be written ({error})") from None
    status = (folder.ended() or {"status": "not finished"})["status"]
    for problem in problems:
        print(f"{folder.path.name}, {status}: {problem}", file=sys.stderr)
    if drawn := drawing.drawn(folder):
        names = [f"{path.name}/" if path.is_dir() else path.name for path in drawn]
        print(f"{folder.path.name}: {', '.join(names)} in {shown(folder.artifacts)}")
    return not problems
