"""A web server on this machine that serves a folder, counts requests, and fails where a test wants it to."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

DROP = 0
"""In the place of a status: the connection is closed without an answer."""

CUT = -1
"""In the place of a status: the connection is closed after a part of the content."""


@dataclass
class Served:
    """What a server serves, and what was asked of it."""

    folder: Path
    url: str = ""
    fail: Callable[[str, int], int | None] = lambda path, number: None
    """Gets the path and how often it was asked for before; returns a status, DROP or CUT, or None to answer rightly."""
    answers: list[tuple[str, int, int]] = field(default_factory=list)
    """Path, status and bytes of content of each answer."""
    tagged: bool = True
    """Whether answers have an ETag and a time."""
    parts: bool = True
    """Whether a part of a file can be asked for."""
    wait: threading.Event | None = None
    """Answers wait until it is set."""

    def asked(self, pattern: str) -> int:
        """Return the number of requests for paths that match."""
        return sum(re.search(pattern, path) is not None for path, _, _ in self.answers)


@contextmanager
def serving(folder: Path, **options) -> Iterator[Served]:
    """Serve a folder."""
    served, lock, counts = Served(folder, **options), threading.Lock(), {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            if served.wait is not None:
                served.wait.wait(30)
            path = unquote(self.path.split("?")[0])
            with lock:
                number = counts[path] = counts.get(path, -1) + 1
            status, file = served.fail(path, number), folder / path.strip("/")
            if status == DROP:
                self._note(path, DROP, 0)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if status not in (None, CUT) or not file.is_file():
                self._answer(path, status or 404, b"")
                return
            content, found = file.read_bytes(), file.stat()
            changed = formatdate(found.st_mtime, usegmt=True)
            tags = {"ETag": f'"{found.st_mtime_ns}-{found.st_ino}"', "Last-Modified": changed}
            self._headers = tags if served.tagged else {}
            part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if part is None or not served.parts:
                self._answer(path, 200, content, cut=status == CUT)
                return
            first, last = part.groups()
            start = int(first) if first else max(0, len(content) - int(last))
            stop = min(len(content), int(last) + 1) if first and last else len(content)
            self._headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self._answer(path, 206, content[start:stop], cut=status == CUT)

        def _answer(self, path: str, status: int, content: bytes, cut: bool = False) -> None:
            self._note(path, status, len(content))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + 10 * cut))
            for name, value in getattr(self, "_headers", {}).items():
                self.send_header(name, value)
            self._headers = {}
            self.end_headers()
            self.wfile.write(content)
            if cut:
                self.close_connection = True

        def _note(self, path: str, status: int, size: int) -> None:
            with lock:
                served.answers.append((path, status, size))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
