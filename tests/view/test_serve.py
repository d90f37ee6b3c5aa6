"""The server of `xlgpt view` answers for its own files, to this machine, and to nobody else."""

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from serving import serving

from xlgpt.errors import PortTaken
from xlgpt.view import PageServer
from xlgpt.view.serve import POLICY

FILES = {"index.html": b"<!doctype html>", "page.js": b"1", "ironcalc.wasm": b"\0asm", "book.ic.gz": b"\x1f\x8b"}


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving(FILES) as server:
        yield server


def asked(server: PageServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_each_file_comes_with_its_type_and_the_policy(server: PageServer) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/ironcalc.wasm", "application/wasm"),
        ("/book.ic.gz?1", "application/gzip"),
    ):
        status, headers, content = asked(server, path)
        name = path.strip("/").partition("?")[0] or "index.html"
        assert (status, headers["Content-Type"], content) == (200, kind, FILES[name])
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe-inline" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/etc/passwd",
        "/.",
        "/..",
        "/book",
        "/page.js/",
        "*",
    ],
)
def test_it_has_no_other_files(server: PageServer, path: str) -> None:
    status, headers, content = asked(server, path)
    assert status == 404
    assert b"<!doctype html>\n" not in content
    assert headers["Content-Security-Policy"] == POLICY


def test_it_answers_no_other_host_and_no_other_method(server: PageServer) -> None:
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        status, _, content = asked(server, "/page.js", host)
        assert (status, FILES["page.js"] == content) == (421, False), host
    assert asked(server, "/page.js", f"localhost:{port}")[0] == 200
    assert asked(server, "/page.js", method="HEAD")[2] == b""
    assert asked(server, "/page.js", method="POST")[0] == 501


def test_it_listens_on_this_machine_only(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(PortTaken, match=rf"Port {server.server_port} is in use"):
        PageServer(FILES, server.server_port)
