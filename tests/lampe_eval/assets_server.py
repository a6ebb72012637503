"""Local web server that misbehaves on request, and assets that it serves."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from lampe_eval.assets.asset_cards import Asset, AssetFile, AssetSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asset(path: str = "data/tiny.bin", content: bytes | None = CONTENT, **more: object) -> Asset:
    """Return an asset of a GitHub repository, pinned if contents are given."""
    pin = {} if content is None else {"bytes": len(content), "sha256": sha256(content)}
    file = AssetFile.model_validate({"path": path, **pin, **more})
    return Asset("tiny", AssetSource(github="someone/tiny", revision=COMMIT, files=(file,)), file)


class Server(ThreadingHTTPServer):
    """Web server for ``files``.

    Attributes:
        files: contents by path.
        ranges: whether requests for a part of a file are answered with that part.
        broken: number of answers that break off in the middle.
        statuses: HTTP statuses of the first answers.
        pause: seconds before each answer.
        requests: method, path and range of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.broken = 0
        self.statuses: list[int] = []
        self.pause = 0.0
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, asset: Asset, content: bytes, part: str = "") -> None:
        path = f"/{asset.source.place}/{asset.source.revision}/{asset.file.path}"
        self.files[f"{path}/{part}" if part else path] = content


class Handler(BaseHTTPRequestHandler):
    """Handler of requests that sends the headers which the hub's client wants."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with headers and contents."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        range_header = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, range_header))
        time.sleep(self.server.pause)
        if self.server.statuses:
            return self.send_error(self.server.statuses.pop(0))
        if self.path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[self.path]
        start = 0
        if range_header and self.server.ranges:
            start = int(range_header.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            return self.send_error(416)
        self._head(content, start)
        if body:
            self._body(content[start:])
        return None

    def _head(self, content: bytes, start: int) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{sha256(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def _body(self, content: bytes) -> None:
        if self.server.broken:
            self.server.broken -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a thread of its own."""
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
