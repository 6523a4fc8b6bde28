"""`reproduce`: train again and compare every number."""

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import home


def main(parser: Parser, arguments: list[str]) -> int:
    parser.with_runs_dir().add_argument(
        "run", metavar="RUN", type=home, help="`last`, a run folder, name or MLflow run id"
    )
    parser.add_argument("--data_dir", type=home, help="where the data lies now (default: where the run found it)")
    options = parser.read(arguments)
    from pipeline.recording.reproduction import reproduce

    return reproduce(**vars(options))
