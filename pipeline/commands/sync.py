"""`sync`: what runs have left undelivered."""

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import home


def main(arguments: list[str]) -> int:
    """Parse, deliver; returns the exit code."""
    parser = Parser("sync", "Deliver to MLflow whatever runs have left undelivered.").with_runs_dir()
    parser.add_argument(
        "runs", nargs="*", type=home, metavar="RUN", help="run folder, name or MLflow run id (default: all)"
    )
    parser.add_argument("--retry", action="store_true", help="send again also what MLflow has refused for good")
    parser.add_argument("--experiment_name", default="", help="send the RUNs to this MLflow experiment instead")
    parser.add_argument("--as-new", "--as_new", action="store_true", help="send all of the RUNs again, as new runs")
    options = parser.read(arguments)
    from pipeline.delivery.sync import sync

    return sync(options.runs, options.runs_dir, options.retry, options.experiment_name, options.as_new)
