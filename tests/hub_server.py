"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as a download needs."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

LARGE = (".safetensors", ".bin")  # what Git LFS keeps: another host serves it


@dataclass
class Trouble:
    """What goes wrong with a request: an error, a file of which only a part comes, or an answer that takes long."""

    status: int = 200
    code: str = ""  # X-Error-Code
    keep: float = 1.0  # the share of the file that is sent
    seconds: float = 0.0
    times: int = 1_000_000


@dataclass
class Hub:
    """Repositories by their names, what is wrong by a part of the path, and what was asked for: (method, path).

    token: what a request for a file of a gated repository has to bring along.
    """

    repositories: dict[str, Path]
    commits: dict[str, str] = field(default_factory=dict)
    trouble: dict[str, Trouble] = field(default_factory=dict)
    gated: frozenset[str] = frozenset()
    token: str = "hf_right"
    requests: list[tuple[str, str]] = field(default_factory=list)
    endpoint: str = ""

    def commit(self, repo: str) -> str:
        """The last commit of a repository's main branch."""
        return self.commits.get(repo, hashlib.sha1(repo.encode()).hexdigest())

    @property
    def storage(self) -> str:
        """Where large files come from: another host than the Hub's, to its client."""
        return self.endpoint.replace("127.0.0.1", "localhost")

    def fetched(self) -> list[str]:
        """The names of the files that were sent, in the order of their requests."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "GET"]

    def settings(self, home: Path) -> dict[str, str]:
        """The environment in which the Hub's client asks this server, and keeps its cache in a folder."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, for as long as it is needed, at a free port."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    """/REPO/resolve/REVISION/FILE as the Hub's own server answers it; a large file at /lfs/REPO/-/FILE."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *values: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        if not path.startswith("api/agent"):  # what the client asks for in its own interest
            self.hub.requests.append((self.command, path))
        trouble = next((t for part, t in self.hub.trouble.items() if part in path and t.times > 0), Trouble())
        trouble.times -= 1
        time.sleep(trouble.seconds)
        if trouble.status != 200:
            self._head(trouble.status, **{"X-Error-Code": trouble.code})
        elif path.startswith("lfs/"):
            repo, _, name = path.removeprefix("lfs/").partition("/-/")
            self._send(self.hub.repositories[repo] / name, trouble.keep)
        elif "/resolve/" in path:
            self._resolve(path, trouble.keep)
        else:
            self._head(404)

    def _resolve(self, path: str, keep: float) -> None:
        repo, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repo not in self.hub.repositories:  # the Hub does not tell strangers what exists
            self._head(401, **{"X-Error-Code": "RepoNotFound"})
            return
        commit = self.hub.commit(repo)
        file = self.hub.repositories[repo] / name
        known = {"X-Repo-Commit": commit}
        if revision not in ("main", commit):
            self._head(404, **{"X-Error-Code": "RevisionNotFound"})
        elif not file.is_file():
            self._head(404, **known, **{"X-Error-Code": "EntryNotFound"})
        elif repo in self.hub.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            status = 403 if "Authorization" in self.headers else 401
            self._head(status, **known, **{"X-Error-Code": "GatedRepo"})
        elif name.endswith(LARGE):
            etag = hashlib.sha256(file.read_bytes()).hexdigest()
            linked = {"X-Linked-Size": str(file.stat().st_size), "X-Linked-ETag": f'"{etag}"'}
            self._head(302, **known, **linked, Location=f"{self.hub.storage}/lfs/{repo}/-/{name}")
        else:
            self._send(file, keep, **known)

    def _send(self, file: Path, keep: float, **headers: str) -> None:
        """A file, or what a Range asks for of it; a part of that, where the line is to break."""
        content = file.read_bytes()
        headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        first = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        self._head(206 if first else 200, len(body), **headers)
        if self.command == "GET":
            self.wfile.write(body[: int(keep * len(body))])
            self.close_connection = self.close_connection or keep < 1

    def _head(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
