"""`experiment`: a question's variants x seeds."""

from pipeline.commands.parsing import Parser, count
from pipeline.terminal.shell import home


def main(parser: Parser, arguments: list[str]) -> int:
    parser.with_runs_dir().with_data_dir()
    parser.add_argument("file", type=home, metavar="FILE", help="the question: experiments/dropout.yaml, for example")
    parser.add_argument("--jobs", type=count, default=0, help="runs at a time (default: auto, one for each core)")
    parser.add_argument(
        "--until",
        choices=["decided"],
        help="train look by look (5, 10, 20, ... seeds), only what the look before has left undecided",
    )
    parser.add_argument(
        "--record",
        choices=["full", "light"],
        help="what each run leaves (default: the file's, or light: `figures` draws the rest)",
    )
    options = parser.read(arguments)
    from pipeline.experiments.experiment import experiment

    everywhere = {name: value for name in ("data_dir", "record") if (value := getattr(options, name))}
    until_decided = options.until == "decided"
    return experiment(options.file, options.jobs, options.runs_dir, everywhere, until_decided=until_decided)
