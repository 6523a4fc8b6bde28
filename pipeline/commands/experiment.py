"""`experiment`: a question's variants x seeds."""

from pipeline.commands.parsing import Parser, count
from pipeline.terminal.shell import home


def main(arguments: list[str]) -> int:
    """Parse, train what is missing and compare; returns the exit code."""
    parser = Parser(
        "experiment", "Train a question's variants x seeds, where missing, and compare them."
    ).with_runs_dir()
    parser.add_argument("file", type=home, metavar="FILE", help="the question: experiments/dropout.yaml, for example")
    parser.add_argument("--jobs", type=count, default=0, help="runs at a time (default: auto, one for each core)")
    parser.add_argument(
        "--data_dir", type=home, help="where the data lies (default: data, for MNIST the environment's MNIST_DIR)"
    )
    options = parser.read(arguments)
    from pipeline.experiments.experiment import experiment

    everywhere = {"data_dir": options.data_dir} if options.data_dir else {}
    return experiment(options.file, options.jobs, options.runs_dir, everywhere)
