"""`reproduce`: train again and compare every number."""

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import home


def main(arguments: list[str]) -> int:
    """Parse, train again and compare; returns the exit code."""
    parser = Parser("reproduce", "Train again from what a run recorded and compare every number.").with_runs_dir()
    parser.add_argument("run", type=home, metavar="RUN", help="`last`, a run folder, name or MLflow run id")
    parser.add_argument("--data_dir", type=home, help="where the data lies now (default: where the run found it)")
    options = parser.read(arguments)
    from pipeline.recording.reproduction import reproduce

    return reproduce(options.run, options.runs_dir, options.data_dir)
