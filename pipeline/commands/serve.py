"""`serve`: the champion over HTTP."""

from pipeline.commands.parsing import Parser, port, seconds
from pipeline.imports import gc_paused


def main(arguments: list[str]) -> int:
    """Parse, serve until stopped; returns the exit code."""
    parser = Parser(
        "serve", "Serve the champion over HTTP, and whichever version becomes it. PIPELINE_TOKEN asks for a token."
    )
    parser.add_argument("--model", default="mnist-mlp", help="the registered model (default: %(default)s)")
    parser.add_argument("--alias", default="champion", help="which of its versions (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=port, default=5000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--allowed_hosts",
        type=lambda text: [name for name in text.replace(",", " ").split() if name],
        default=[],
        help="names by which clients may call it besides addresses, localhost and names without a dot: a,b or *",
    )
    parser.add_argument("--poll", type=seconds, default=1.0, help="seconds between looks at the alias (default: 1)")
    parser.add_argument("--log_level", default="info", choices=("debug", "info", "warning", "error"))
    options = parser.read(arguments)
    with gc_paused():
        from pipeline.serving.server import serve

    return serve(
        options.model,
        options.alias,
        options.host,
        options.port,
        options.poll,
        options.log_level,
        options.allowed_hosts,
    )
