"""`experiment`: a question's variants x seeds."""

import math

from pipeline.cluster.address import DEFAULTS, FORMS, LOCAL, place_of
from pipeline.commands.parsing import Parser, count, within
from pipeline.terminal.shell import home

share = within(float, 0.01, math.inf, "a number above 0")
share_or_none = within(float, 0, math.inf, "a number from 0")


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
    add_cluster(parser)
    options = parser.read(arguments)
    place = place_of(options.on)
    if place.kind == "job":
        from pipeline.cluster.jobs import submit

        return submit(place, options)
    engine = None
    if place.kind != LOCAL:
        from pipeline.cluster.ray_cluster import RayCluster

        engine = RayCluster(place, **{flag: getattr(options, flag) for flag in DEFAULTS})
    from pipeline.experiments.experiment import experiment

    everywhere = {name: value for name in ("data_dir", "record") if (value := getattr(options, name))}
    until_decided = options.until == "decided"
    return experiment(
        options.file, options.jobs, options.runs_dir, everywhere, until_decided=until_decided, engine=engine
    )


def add_cluster(parser: Parser) -> None:
    """The flags that say where the runs are trained."""
    parser.add_argument("--on", default=LOCAL, metavar="WHERE", help=f"where to train (default: local): {FORMS}")
    parser.add_argument("--cpus", type=share, help="CPUs of a run, on Ray (default: 1)")
    parser.add_argument("--gpus", type=share_or_none, help="GPUs of a run, on Ray (default: 0)")
    parser.add_argument(
        "--checkpoint_every",
        type=share_or_none,
        metavar="SECONDS",
        help="on Ray: send a run's checkpoint no more often than this (default: 0, after every epoch)",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="speak to a cluster that others can reach and that asks for no token"
    )
    parser.set_defaults(**DEFAULTS)
