"""A build server of the tests' own: pages by address, each a status, headers and octets, served as they are."""

import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

OLD = "11111111-1111-1111-1111-111111111111"
NEW = "22222222-2222-2222-2222-222222222222"
JOB = "hello"


@dataclass
class Page:
    """One answer; ``promised`` is its Content-Length where that is not the truth."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    promised: int | None = None


def redirect(target: str, status: int = 302) -> Page:
    return Page(status, {"Location": target})


def document(value: object) -> Page:
    return Page(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def job_of(image: bytes, uuid: str = NEW) -> Page:
    binary = {"filename": "bin/hello", "sha256": hashlib.sha256(image).hexdigest(), "size": len(image)}
    return document({"builds": [{"uuid": OLD, "main_binary": None}, {"uuid": uuid, "main_binary": binary}]})


def tag_of(image: bytes) -> str:
    return '"' + base64.b64encode(hashlib.sha256(image).digest()).decode() + '"'


def pages(running: bytes, latest: bytes) -> dict[str, Page]:
    """A server whose latest build of the image ``running`` is ``latest``."""
    return {
        f"/hash?sha256={hashlib.sha256(running).hexdigest()}": redirect(f"/job/{JOB}/build/{OLD}"),
        f"/job/{JOB}/build/{OLD}": document({"job": JOB, "uuid": OLD, "platform": "debian-12"}),
        f"/job/{JOB}/build/latest?platform=debian-12": redirect(f"/job/{JOB}/build/{NEW}", 307),
        f"/job/{JOB}": job_of(latest),
        f"/job/{JOB}/build/{NEW}/main-binary": redirect(f"/job/{JOB}/build/{NEW}/f/bin/hello"),
        f"/job/{JOB}/build/{NEW}/f/bin/hello": Page(200, {"ETag": tag_of(latest)}, latest),
    }


class Builds:
    """Serves ``pages`` on a port of this machine while it is entered; ``asked`` has every address that came."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        builds = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                builds.asked.append(self.path)
                page = builds.pages.get(self.path, Page(404))
                self.send_response(page.status)
                for name, value in page.headers.items():
                    self.send_header(name, value.replace("http://SELF", builds.url))
                self.send_header("Content-Length", str(len(page.content) if page.promised is None else page.promised))
                self.end_headers()
                if self.command == "GET":
                    with contextlib.suppress(ConnectionError):  # a client that was interrupted
                        self.wfile.write(page.content)

            do_HEAD = do_GET  # noqa: N815  names of http.server

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # they are waited for when the server is closed
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Builds":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class Dripping:
    """A server that says ``first`` and then ``drop`` again and again, until nobody listens any more."""

    def __init__(self, first: bytes, drop: bytes) -> None:
        self._first, self._drop = first, drop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Dripping":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(self._first)
                while True:
                    connection.sendall(self._drop)
                    time.sleep(0.01)
