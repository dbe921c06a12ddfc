"""A broker with a web page, and those who ask it for something."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import load, tokens_path
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from canbroker.wire.status import WebStatus
from tests.support.brokers import status_of, wait_until

#: A bus that sends what it gets, and a page on any free port.
CONFIG: Final = """
[channels.can0]
interface = "virtual"
bitrate = 500000

[web]
listen = "127.0.0.1:0"
transmit = ["100-1FF"]
"""


class Answer(NamedTuple):
    """``headers`` by their names in small letters; of several with a name, the last one."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """The page of a broker, as a browser finds it."""

    def __init__(self, runtime: Runtime, url: str) -> None:
        self.runtime = runtime
        self.url = url
        self.host = urlsplit(url).netloc
        self.port = urlsplit(url).port or 0

    @property
    def status(self) -> WebStatus:
        found = status_of(self.runtime).web
        assert found is not None
        return found

    def token(self, role: Role = Role.TRANSMIT) -> str:
        return load(tokens_path()).by_role[role]

    def cookie(self, role: Role = Role.TRANSMIT) -> str:
        """What a browser has after it has opened the address with the token."""
        answer = self.ask("GET", f"/?token={self.token(role)}", cookie=None)
        assert answer.status == 303, answer
        return answer.headers["set-cookie"].partition(";")[0]

    def ask(
        self,
        method: str,
        path: str,
        *,
        cookie: str | None = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a request. ``cookie``: empty is that of the role transmit. A header
        replaces ours."""
        given = {"Host": self.host}
        if method == "POST":
            given["Origin"] = self.url.rstrip("/")
        if cookie is not None:
            given["Cookie"] = cookie or self.cookie()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {**given, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def open(self, **given: Any) -> ClientConnection:
        """An open socket of a page; ``given`` replaces arguments of ours."""
        return connect(
            **{
                "uri": f"ws://127.0.0.1:{self.port}/socket",
                "origin": self.url.rstrip("/"),
                "additional_headers": {"Cookie": self.cookie()},
                "compression": None,
                "max_size": None,
                "proxy": None,
                "close_timeout": 1,
            }
            | given
        )

    def raw_socket(self, cookie: str) -> tuple[int, socket.socket]:
        """A socket of a page without a library, which reads nothing by itself: the status of its
        handshake, and the connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        head = (
            f"GET /socket HTTP/1.1\r\nHost: {self.host}\r\nOrigin: http://{self.host}\r\n"
            f"Cookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        connection.sendall(head.encode())
        return int(connection.recv(12).split()[1]), connection

    def refusals(self, kind: str, least: int) -> int:
        """Waits until the broker knows of ``least`` refusals of a kind; returns their number."""
        wait_until(lambda: self.status.refusals.get(kind, 0) >= least, f"{least} refusals: {kind}")
        return self.status.refusals[kind]


@contextmanager
def site(runtime: Runtime, directory: Path, config: str = CONFIG) -> Iterator[Site]:
    """A broker with a page, in a process of its own."""
    path = directory / "bench.toml"
    path.write_text(config)
    with serving(runtime, path):
        yield Site(runtime, url_of(runtime))


@contextmanager
def serving(runtime: Runtime, path: Path) -> Iterator[None]:
    """``canbroker serve -c path``."""
    runtime.prepare()
    with (runtime.directory.parent / "serve.log").open("ab") as log:
        command = EntryPoint.COMMAND.command("serve", "-c", str(path))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(runtime.place.broker.path.exists, "the broker serves", 30)
        yield
    finally:
        process.terminate()
        process.wait(20)


def url_of(runtime: Runtime) -> str:
    """The address of the broker's page, once it serves."""
    found: list[str] = []

    def is_there() -> bool:
        if runtime.place.broker.path.exists():
            web = status_of(runtime).web
            assert web is None or web.phase != "failed", web
            if web is not None and web.url:
                found.append(web.url)
        return bool(found)

    wait_until(is_there, "the page serves", 30)
    return found[0]


def told(page: ClientConnection, what: str, timeout: float = 10.0) -> Any:
    """The next message's part ``what``; others are skipped."""
    while True:
        message = json.loads(page.recv(timeout))
        if what in message:
            return message[what]


def raw_message(kind: str, **fields: Any) -> bytes:
    """The same as the bytes of a short message (RFC 6455), masked by zeros."""
    text = json.dumps({"ask": kind, **fields}).encode()
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def ask(page: ClientConnection, kind: str, **fields: Any) -> None:
    page.send(json.dumps({"ask": kind, **fields}))
