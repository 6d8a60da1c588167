"""A gateway and a model for the program that cannot do without: a real HTTP server that keeps what it is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

_ANSWERS: Final = {
    ("GET", "/health"): {"status": "ok"},
    ("POST", "/log"): {"logged": True},
    ("POST", "/ai/generate"): {"text": "Check the venue's phone number before the call."},
}


class Gateway(ThreadingHTTPServer):
    """Answers `GET /health`, `POST /log` and `POST /ai/generate`; anything else is 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, Any]] = []
        """Path and JSON of each POST, in the order of their arrival."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.received.append((self.path, json.loads(body)))
        self._answer()

    def _answer(self) -> None:
        answer = _ANSWERS.get((self.command, self.path))
        body = json.dumps(answer or {"error": "not found"}).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the run prints a report."""


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    """Serve on a free port until the block ends."""
    with Gateway() as gateway:
        thread = Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield gateway
        finally:
            gateway.shutdown()
            thread.join()
