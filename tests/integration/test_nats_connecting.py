"""Connecting to a real NATS server: what is wrong is said in one sentence, within seconds."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.jetstream import server, streams, subjects
from canbroker.jetstream.server import Server, Tls
from tests.support.nats_servers import NatsServer, needs_server
from tests.support.remote import free_port

pytestmark = needs_server

USERS = 'authorization { users: [{ user: "bench", password: "right" }] }'


async def _connects(given: Server) -> str:
    client = await server.connect(given, "test")
    await client.flush()
    url = client.connected_url
    await client.close()
    assert url is not None
    return url.netloc


def fault(given: Server) -> str:
    with pytest.raises(CanInitializationError) as caught:
        asyncio.run(_connects(given))
    return str(caught.value)


def test_it_connects_and_streams_are_as_they_are_laid_out(tmp_path: Path) -> None:
    async def run(given: Server) -> None:
        client = await server.connect(given, "test")
        js = client.jetstream()
        for layout in (streams.FRAMES, streams.VALUES):
            await js.add_stream(layout.config())
        frames = await js.find_stream_name_by_subject(subjects.frames("a", "b.c", "d e"))
        state = await js.find_stream_name_by_subject(subjects.state("a", "b", "c"))
        await client.close()
        assert (frames, state) == ("CAN_FRAMES", "CAN_VALUES")

    with NatsServer(tmp_path) as nats:
        asyncio.run(run(Server(url=nats.url)))


def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    assert str(port) in fault(Server(url=f"nats://127.0.0.1:{port}"))


def test_of_several_servers_one_is_enough(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as nats:
        urls = [f"nats://127.0.0.1:{free_port()}", nats.url]
        assert asyncio.run(_connects(Server(url=urls))) == f"127.0.0.1:{nats.port}"


def test_wrong_and_missing_credentials_are_told_apart(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with NatsServer(tmp_path / "nats", USERS) as nats:
        assert "wants credentials" in fault(Server(url=nats.url))
        secret.write_text("bench:wrong\n")
        told = fault(Server(url=nats.url, credentials=str(secret)))
        assert "refuses our credentials" in told
        assert "wrong" not in told
        secret.write_text("bench:right\n")
        asyncio.run(_connects(Server(url=nats.url, credentials=str(secret))))
        asyncio.run(_connects(Server(url=f"nats://bench:right@127.0.0.1:{nats.port}")))


def test_passwords_in_urls_are_not_shown() -> None:
    told = fault(Server(url=f"nats://bench:geheim@127.0.0.1:{free_port()}"))
    assert "geheim" not in told


def test_a_server_that_does_not_encrypt_is_refused_if_we_do(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as nats:
        told = fault(Server(url=f"tls://bench:geheim@127.0.0.1:{nats.port}"))
        assert "does not encrypt" in told
        assert "geheim" not in told


class OldServer:
    """Greets as a server of an old version does, and answers PING: all that connecting takes."""

    def __init__(self, version: str) -> None:
        info = {"server_id": "X", "version": version, "proto": 1, "headers": True}
        self._greeting = f"INFO {json.dumps(info | {'max_payload': 1 << 20})}\r\n".encode()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()


async def _connects_to(double: OldServer) -> str:
    async with await asyncio.start_server(double, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        return await _connects(Server(url=f"nats://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2.9.25", "is version 2.9.25, older than 2.10"),
        ("1.4.1-beta", "is version 1.4.1, older than 2.10"),
        ("new", "does not say which version it is"),
    ],
)
def test_a_server_that_is_too_old_is_refused(version: str, said: str) -> None:
    with pytest.raises(CanInitializationError) as caught:
        asyncio.run(_connects_to(OldServer(version)))
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0-RC.1", "3.0.0"])
def test_a_server_that_is_new_enough_is_not(version: str) -> None:
    assert asyncio.run(_connects_to(OldServer(version)))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://host:1", "must be nats://"),
        ("nats://", "must be nats://"),
        ("nats://host:x", "must be nats://"),
        ("nats://host:1/path", "must be nats://"),
        ("nats://user:geheim@ho st:1", "must be nats://"),
        ([], "no server"),
    ],
)
def test_wrong_urls_are_refused_without_their_passwords(url: str | list[str], found: str) -> None:
    with pytest.raises(ValueError, match=found) as caught:
        Server(url=url)
    assert "geheim" not in str(caught.value)


def test_files_that_are_not_credentials_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="No such file"):
        Server(url="nats://h:1", credentials=str(path)).login()
    path.write_text("neither\n")
    with pytest.raises(ValueError, match="neither"):
        Server(url="nats://h:1", credentials=str(path)).login()
    with pytest.raises(ValueError, match=r"tls\.ca"):
        Server(url="nats://h:1", tls=Tls(ca=str(path))).context()
    assert isinstance(Server(url="nats://h:1", tls=Tls()).context(), ssl.SSLContext)
