"""`sync`: what runs have left undelivered."""

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import home


def main(parser: Parser, arguments: list[str]) -> int:
    parser.with_runs_dir().add_argument(
        "runs", nargs="*", type=home, metavar="RUN", help="`last`, run folder, name or MLflow run id (default: all)"
    )
    parser.add_argument("--retry", action="store_true", help="send again also what MLflow has refused for good")
    parser.add_argument("--experiment_name", default="", help="send the RUNs to this MLflow experiment instead")
    parser.add_argument("--as-new", action="store_true", help="send all of the RUNs again, as new runs")
    options = parser.read(arguments)
    from pipeline.delivery.sync import sync

    return sync(**vars(options))
