"""A web server that misbehaves on request."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import data.transfer.fetch as fetch_module


class Server(ThreadingHTTPServer):
    """Serves `files`; every list of faults is used up from the front, one entry a GET."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.ranges = True
        self.cuts: list[int] = []  # bytes after which the connection is cut
        self.statuses: list[int] = []
        self.html = False
        self.lengths = True
        self.asked: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        asked = (self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        self.server.asked.append(asked)
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server, path = self.server, self.path
        if body and server.statuses and (status := server.statuses.pop(0)) != 200:
            return self._plain(status)
        if path not in server.files:
            return self._plain(404)
        content, etag = server.files[path], server.etags.get(path, '"v1"')
        start, asked = 0, self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._plain(416, {"Content-Range": f"bytes */{len(content)}"})
            self.send_response(206)
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", "text/html" if server.html else "application/zip")
        if etag:
            self.send_header("ETag", etag)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if body:
            rest = content[start:]
            cut = server.cuts.pop(0) if server.cuts else len(rest)
            self.wfile.write(rest[:cut])
            if cut < len(rest):
                self.close_connection = True
        return None

    def _plain(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch_module, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()
