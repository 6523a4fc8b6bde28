"""`promote`: let a version become champion, or roll back."""

from pipeline.commands.parsing import Parser, within
from pipeline.config import AUTO

points = within(float, 0.01, 10, "a number of percentage points from 0.01 to 10")


def main(parser: Parser, arguments: list[str]) -> int:
    parser.with_runs_dir().with_data_dir(
        "where the champion's run found it; MNIST and its relatives as train finds them"
    )
    parser.add_argument(
        "target", nargs="?", metavar="RUN_OR_VERSION", default="newest", help="(default: newest version)"
    )
    parser.add_argument("--model", default="mnist-mlp", help="the registered model (default: %(default)s)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing: tell which examples decide and what it takes. A comparison that is shown is counted as a "
        "look at them, so it shows only one that was shown before",
    )
    parser.add_argument(
        "--margin",
        type=points,
        default=0.0,
        metavar="POINTS",
        help="ask that it is shown at most so many percentage points worse (default: that it is shown better)",
    )
    parser.add_argument(
        "--force", metavar="REASON", help="promote whatever the comparison says; the reason is recorded"
    )
    parser.add_argument("--rollback", action="store_true", help="give the alias back to the version that had it before")
    options = parser.read(arguments)
    if options.rollback and (options.target != "newest" or options.force or options.dry_run or options.margin):
        raise ValueError("--rollback goes alone: it takes the version that has the alias `previous`")
    if options.force is not None and not options.force.strip():
        raise ValueError("--force needs a reason, which is recorded: --force 'bug in the old preprocessing'")
    from pipeline.registry.promotion import promote, rollback

    if options.rollback:
        return rollback(options.model)
    return promote(
        options.target,
        options.model,
        runs_dir=options.runs_dir,
        data_dir=options.data_dir or AUTO,
        dry_run=options.dry_run,
        force=options.force or "",
        margin=options.margin,
    )
