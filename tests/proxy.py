"""A hostile proxy on loopback in front of a real server: it refuses, delays, cuts off, or loses the answer."""

import http.client
import http.server
import socket
import struct
import threading
from urllib.parse import urlsplit

PAGE = b"<html><body><h1>%d</h1>the gateway says no</body></html>"
# What it can do to a request: an answer of its own as HTML; the server's deed with a lost answer; a cut; silence.
FAULTS = ("401", "403", "404", "408", "429", "503", "502 after", "reset", "reset after", "silence")


class Proxy:
    """Forwards to the server at `target` whatever `fault(method, path)` gives no word of `FAULTS` for.

    Attributes:
        seen: method and path of every request, and the fault it met.
        silence_s: how long "silence" lasts; the request is then forwarded, late.
    """

    def __init__(self, target):
        self.target = target
        self.seen = []
        self.silence_s = 20.0
        self.clear()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words):
                pass

            def do_any(self):
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # clients that give up are what this is for

        self._server = Threads(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def clear(self):
        """Forward everything."""
        self.over = threading.Event()
        self.fault = lambda method, path: None

    def always(self, fault, path=""):
        """Do this to every request whose path contains the text."""
        self.fault = lambda method, where: fault if path in where else None

    def first(self, times, fault, path=""):
        """Do this to the first so many requests whose path ends with the text."""
        left = [times]

        def chosen(method, where):
            if where.split("?")[0].endswith(path) and left[0] > 0:
                left[0] -= 1
                return fault
            return None

        self.fault = chosen

    def close(self):
        """Stop."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request):
        """Answer one request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault(request.command, request.path)
        self.seen.append((request.command, urlsplit(request.path).path, fault))
        if fault == "silence":
            self.over.wait(self.silence_s)
        elif fault == "reset":
            return self._reset(request)
        elif fault is not None and fault.isdigit():
            return self._answer(request, int(fault), PAGE % int(fault), {"Content-Type": "text/html"})
        try:
            status, headers, content = self._forward(request, body)
        except OSError:
            return self._answer(request, 502, PAGE % 502, {"Content-Type": "text/html"})
        if fault == "reset after":
            return self._reset(request)
        if fault == "502 after":
            return self._answer(request, 502, PAGE % 502, {"Content-Type": "text/html"})
        return self._answer(request, status, content, headers)

    def _forward(self, request, body):
        target = urlsplit(self.target)
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        kept = {name: text for name, text in request.headers.items() if name.lower() not in ("host", "connection")}
        try:
            connection.request(request.command, request.path, body, kept)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        dropped = ("transfer-encoding", "connection", "content-length", "date", "server")
        return answer.status, {name: text for name, text in answer.getheaders() if name.lower() not in dropped}, content

    @staticmethod
    def _answer(request, status, content, headers):
        request.send_response(status)
        for name, text in headers.items():
            request.send_header(name, text)
        if status == 429:
            request.send_header("Retry-After", "3600")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    @staticmethod
    def _reset(request):
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.close_connection = True
        request.connection.close()
