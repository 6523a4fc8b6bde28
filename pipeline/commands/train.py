"""`train`: once, recorded; or the rest of an interrupted run."""

from pipeline.commands.flags import given_knobs, parse_knobs
from pipeline.commands.parsing import Parser
from pipeline.config import RunConfig


def main(parser: Parser, arguments: list[str]) -> int:
    options, values = parse_knobs(parser, arguments)
    given = given_knobs(values, options.config, options.project_defaults)
    config = RunConfig.from_mapping(given)
    from pipeline.commands import recorded_training

    run = options.resume or recorded_training.local_run_of_mlflow(config.runs_dir)
    return recorded_training.train(config) if run is None else recorded_training.resume(run, given, config.runs_dir)
