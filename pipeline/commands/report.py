"""`report`: the lab book."""

from pipeline.commands.parsing import Parser
from pipeline.terminal.shell import home


def main(parser: Parser, arguments: list[str]) -> int:
    parser.add_argument(
        "files", nargs="*", type=home, metavar="FILE", help="experiment files to measure anew (default: all)"
    )
    parser.add_argument(
        "--folder", type=home, default="experiments", help="where the lab book lies (default: %(default)s)"
    )
    options = parser.read(arguments)
    from pipeline.experiments.lab_book import write_lab_book

    return write_lab_book(options.files, options.folder)
