"""`compare`: what MLflow's runs have shown, on the screen and in files."""

import gc
import math
import sys

from pipeline.commands.parsing import Parser, within
from pipeline.terminal.shell import home

smallest = within(float, math.ulp(0.0), sys.float_info.max, "a number above 0, like 0.001 of an accuracy")


def main(parser: Parser, arguments: list[str]) -> int:
    parser.add_argument("what", nargs="*", metavar="WHAT", help="experiments, run ids or run names (default: all)")
    parser.add_argument("--filter", default="", help="MLflow's: \"params.optimizer = 'sgd'\"")
    parser.add_argument("--baseline", help="the group that the others are compared with")
    parser.add_argument("--metric", help="the final value that decides (default: the question's, or val_accuracy)")
    parser.add_argument(
        "--smallest", type=smallest, help="smallest difference of interest (default: 0.001 of an accuracy)"
    )
    parser.add_argument("--out", type=home, metavar="DIR", help="write an HTML report, pictures, CSV and JSON there")
    options = vars(parser.read(arguments))
    gc.disable()  # a short life: collecting what the imports made would take a tenth of it
    from pipeline.analysis.answer import compare

    return compare(options.pop("what"), filter_text=options.pop("filter"), **options)
