"""What is wrong with NATS is said within seconds, the channels do not notice, and frames wait."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import api
from nats.js.client import JetStreamContext

from canbroker.jetstream import streams, subjects
from canbroker.jetstream.heads import Gap, Head
from canbroker.jetstream.server import Server, connect
from canbroker.transport.runtime import Runtime
from tests.support.bridges import (
    BENCH,
    SITE,
    SUBJECT,
    bridged,
    is_sound,
    kill_bridge,
    read_all,
    send,
    wait_connected,
    wait_for,
    wait_for_trouble,
)
from tests.support.certificates import make_certificate
from tests.support.commands import run
from tests.support.nats_servers import NatsServer, needs_server
from tests.support.nats_stream import read

pytestmark = [needs_server, pytest.mark.long]

#: "Within seconds"; on a machine that is busy.
SECONDS = 15.0


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


def manage(url: str, job: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
    """Does something with the streams of a server."""

    async def done() -> Any:
        client = await connect(Server(url=url), "admin")
        try:
            return await job(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(done())


def make_stream(url: str, **changes: Any) -> None:
    """The stream of frames, with other settings."""
    config = streams.FRAMES.config()
    for name, value in changes.items():
        setattr(config, name, value)
    manage(url, lambda js: js.add_stream(config))


def change_stream(url: str, **changes: Any) -> None:
    async def change(js: JetStreamContext) -> None:
        config = (await js.stream_info(streams.FRAMES.name)).config
        for name, value in changes.items():
            setattr(config, name, value)
        await js.update_stream(config)

    manage(url, change)


def test_it_waits_for_a_server_that_is_not_there_yet(runtime: Runtime, tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    with bridged(runtime, tmp_path, server.url):
        told = wait_for_trouble(runtime, str(server.port), SECONDS)
        assert told.startswith("NATS at nats://127.0.0.1")
        assert "Connection refused" in told
        send(range(1000))
        done = run("status")
        assert "NATS nats://127.0.0.1" in done.stdout
        assert "not connected" in done.stdout
        with server:
            assert read_when_there(runtime, server).numbers == list(range(1000))


def read_when_there(runtime: Runtime, server: NatsServer) -> Any:
    wait_connected(runtime)
    return read_all(server.url, 1000)


def test_wrong_credentials(runtime: Runtime, tmp_path: Path) -> None:
    users = 'authorization { users: [{ user: "bench", password: "right" }] }'
    (tmp_path / "secret").write_text("bench:wrong")
    with (
        NatsServer(tmp_path / "nats", users) as server,
        bridged(runtime, tmp_path, server.url, 'credentials = "secret"'),
    ):
        told = wait_for_trouble(runtime, "refuses our credentials", SECONDS)
        assert "wrong" not in told
        send(range(1000))
        (tmp_path / "secret").write_text("bench:right")  # it is read for each connection
        wait_connected(runtime)
        url = f"nats://bench:right@127.0.0.1:{server.port}"
        assert read_all(url, 1000).numbers == list(range(1000))


@pytest.mark.parametrize(
    ("denied", "found"),
    [
        ('publish: { deny: "can.v1.*.*.*.rx" }', "can.v1.lab.bench%2e7%20%3e.x.rx"),
        ('publish: { deny: "$JS.API.STREAM.MSG.GET.>" }', "$js.api.stream.msg.get.can_frames"),
        ('subscribe: { deny: "_INBOX.>" }', "_inbox"),
    ],
    ids=["frames", "the place", "answers"],
)
def test_a_missing_permission_is_named(
    runtime: Runtime, tmp_path: Path, denied: str, found: str
) -> None:
    users = f"""authorization {{ users: [
        {{ user: bench, password: secret, permissions: {{ {denied} }} }}
        {{ user: admin, password: secret }} ] }}"""
    with NatsServer(tmp_path / "nats", users) as server:
        make_stream(f"nats://admin:secret@127.0.0.1:{server.port}")
        with bridged(runtime, tmp_path, f"nats://bench:secret@127.0.0.1:{server.port}"):
            send(range(1000))
            told = wait_for_trouble(runtime, found, SECONDS)
            assert "permissions violation" in told.lower()
            send(range(1000, 2000))  # the channel does not notice


def test_a_missing_permission_for_states_does_not_keep_frames(
    runtime: Runtime, tmp_path: Path
) -> None:
    users = """authorization { users: [
        { user: bench, password: secret, permissions: { publish: { deny: "can.v1.*.*.*.state" } } }
        ] }"""
    with NatsServer(tmp_path / "nats", users) as server:
        url = f"nats://bench:secret@127.0.0.1:{server.port}"
        with bridged(runtime, tmp_path, url):
            wait_for_trouble(runtime, "x.state", SECONDS)
            send(range(1000))
            assert read_all(url, 1000).numbers == list(range(1000))


def test_a_server_without_jetstream(runtime: Runtime, tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path / "nats", with_jetstream=False) as server,
        bridged(runtime, tmp_path, server.url),
    ):
        wait_for_trouble(runtime, "JetStream is not enabled", SECONDS)
        send(range(1000))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"max_msg_size": 100}, "limited to 100 bytes"),
        ({"max_msgs_per_subject": 1}, "keeps only 1 messages"),
        ({"retention": api.RetentionPolicy.WORK_QUEUE}, "retention workqueue"),
        ({"no_ack": True}, "acknowledges nothing"),
    ],
    ids=["size", "last value", "work queue", "no ack"],
)
def test_a_stream_that_cannot_serve_is_named(
    runtime: Runtime, tmp_path: Path, nats: NatsServer, changes: dict[str, Any], found: str
) -> None:
    make_stream(nats.url, **changes)
    with bridged(runtime, tmp_path, nats.url):
        told = wait_for_trouble(runtime, found, SECONDS)
        assert "CAN_FRAMES" in told
        send(range(1000))


def test_messages_fit_into_a_stream_with_small_ones(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    make_stream(nats.url, max_msg_size=4096)
    with bridged(runtime, tmp_path, nats.url):
        send(range(5000))
        wait_for(runtime, 5000)
    stored = read(nats.url, SUBJECT)
    assert stored.numbers == list(range(5000))
    assert max(head.frames for head in stored.heads) == 32


def test_a_full_stream_that_refuses_is_waited_for(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    """None of the frames that have been refused is overtaken by a smaller message that fits."""
    make_stream(nats.url, max_bytes=20_000, discard=api.DiscardPolicy.NEW)
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        send(range(5000))
        told = wait_for_trouble(runtime, "CAN_FRAMES does not take frames", SECONDS)
        assert "maximum bytes exceeded" in told
        kill_bridge(runtime)
        send(range(5000, 6000))
        wait_for_trouble(runtime, "maximum bytes exceeded", SECONDS)
        change_stream(nats.url, max_bytes=100_000_000)
        stored = read_all(nats.url, 6000)
    assert stored.numbers == list(range(6000))
    assert is_sound(stored)


def test_a_stream_of_somebody_else_is_not_written_to(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    make_stream(nats.url)
    manage(nats.url, lambda js: js.publish(SUBJECT, b"hello"))
    with bridged(runtime, tmp_path, nats.url):
        wait_for_trouble(runtime, "is not a bridge's", SECONDS)


def test_two_bridges_with_one_name_do_not_mix(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    """Another bench was given this one's name by mistake."""
    make_stream(nats.url)
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        send(range(10))
        wait_for(runtime, 10)
        change_stream(nats.url, discard=api.DiscardPolicy.NEW)  # one message at a time
        kill_bridge(runtime)
        wait_connected(runtime)
        manage(nats.url, lambda js: js.publish(SUBJECT, b"", headers=other_head()))
        send(range(10, 20))
        wait_for_trouble(runtime, "somebody else publishes", SECONDS)


def other_head() -> dict[str, str]:
    return Head(1, "x", 0, 0, 1, Gap("lost", 5, "mine")).headers()


def tls(certificate: Path, key: Path) -> str:
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'


def test_tls(runtime: Runtime, tmp_path: Path) -> None:
    ours, key = make_certificate(tmp_path)
    with (
        NatsServer(tmp_path / "nats", tls(ours, key)) as server,
        bridged(runtime, tmp_path, server.url, f'tls = {{ ca = "{ours.name}" }}'),
    ):
        send(range(1000))
        wait_for(runtime, 1000)


def test_a_certificate_of_somebody_else(runtime: Runtime, tmp_path: Path) -> None:
    ours, _ = make_certificate(tmp_path, "ours")
    theirs, key = make_certificate(tmp_path, "theirs")
    with (
        NatsServer(tmp_path / "nats", tls(theirs, key)) as server,
        bridged(runtime, tmp_path, server.url, f'tls = {{ ca = "{ours.name}" }}'),
    ):
        told = wait_for_trouble(runtime, "its certificate is not accepted", SECONDS)
        assert "self-signed" in told or "self signed" in told
        send(range(1000))


def test_a_server_that_encrypts_while_we_do_not(runtime: Runtime, tmp_path: Path) -> None:
    theirs, key = make_certificate(tmp_path)
    with (
        NatsServer(tmp_path / "nats", tls(theirs, key)) as server,
        bridged(runtime, tmp_path, server.url),
    ):
        wait_for_trouble(runtime, "certificate is not accepted", SECONDS)


def test_a_server_that_does_not_encrypt_while_we_do(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    ours, _ = make_certificate(tmp_path)
    with bridged(runtime, tmp_path, nats.url, f'tls = {{ ca = "{ours.name}" }}'):
        wait_for_trouble(runtime, "the server does not encrypt", SECONDS)
        send(range(1000))


def test_where_is_nobodys_nats(runtime: Runtime, tmp_path: Path) -> None:
    """The port of something else."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"nats://127.0.0.1:{other.getsockname()[1]}"
        with bridged(runtime, tmp_path, url):
            wait_for_trouble(runtime, "no answer within", SECONDS)


def test_subjects_are_as_documented() -> None:
    assert subjects.frames(SITE, BENCH, "x") == "can.v1.lab.bench%2E7%20%3E.x.rx"
