"""Serves the page to this machine, and nothing else to nobody else."""

import errno
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from xlgpt.errors import PortTaken
from xlgpt.view.site import Site

HERE = "127.0.0.1"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "wasm": "application/wasm",
    "gz": "application/gzip",
    "txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PageServer(ThreadingHTTPServer):
    """Answers GET and HEAD for the files of a site, on 127.0.0.1; port 0 takes one that is free. Raises PortTaken."""

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, files: Site, port: int = 0):
        self.files = files
        try:
            super().__init__((HERE, port), _Handler)
        except (OSError, OverflowError) as e:
            if isinstance(e, OSError) and e.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise PortTaken(
                f"Port {port} is in use or not to be had; choose another with --port, or leave it out."
            ) from e

    @property
    def hosts(self) -> set[str]:
        """What a browser on this machine calls the server. Another name is another page's doing (DNS rebinding)."""
        return {f"{name}:{self.server_port}" for name in (HERE, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HERE}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "xlgpt", ""

    def do_GET(self) -> None:
        """Send a file."""
        content = self._head()
        if content:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        """Say what a file is."""
        self._head()

    def _head(self) -> bytes:
        name = self.path.partition("?")[0].removeprefix("/") or "index.html"
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return b""
        if name not in self.server.files:
            self.send_error(HTTPStatus.NOT_FOUND)
            return b""
        content = self.server.files[name]
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[name.rpartition(".")[2]])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def end_headers(self) -> None:
        """With what keeps other pages out, on every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""
