"""`serve`: the champion over HTTP."""

from pipeline.commands.parsing import Parser, port, seconds
from pipeline.imports import gc_paused
from pipeline.terminal.shell import DONE


def main(parser: Parser, arguments: list[str]) -> int:
    parser.epilog = "The environment's PIPELINE_TOKEN asks for a token."
    parser.add_argument("--model", default="mnist-mlp", help="the registered model (default: %(default)s)")
    parser.add_argument("--alias", default="champion", help="which of its versions (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=port, default=5000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--allowed_hosts",
        type=lambda text: text.replace(",", " ").split(),
        default=[],
        help="names by which clients may call it besides addresses, localhost and names without a dot: a,b or *",
    )
    parser.add_argument("--poll", type=seconds, default=1.0, help="seconds between looks at the alias (default: 1)")
    parser.add_argument(
        "--log_level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what the error output has; warning leaves out the lines of requests (default: %(default)s)",
    )
    options = vars(parser.read(arguments))
    with gc_paused():
        from pipeline.serving.server import serve

    serve(poll_s=options.pop("poll"), **options)
    return DONE
