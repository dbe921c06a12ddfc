"""Last values in NATS, states and signals, and requests to transmit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError

from canbroker import Bus
from canbroker.jetstream import streams, subjects
from canbroker.jetstream.commands import Answer, parse_answer
from canbroker.jetstream.server import Server, connect
from canbroker.jetstream.values import BenchState, Sample, parse_sample, parse_state
from canbroker.transport.runtime import Runtime
from tests.support.bridges import (
    BENCH,
    PATIENCE_S,
    SITE,
    bridge,
    bridged,
    kill_bridge,
    send,
    wait_connected,
    wait_for,
)
from tests.support.brokers import status_of, wait_until
from tests.support.nats_servers import NatsServer, needs_server

pytestmark = needs_server

STATE = subjects.state(SITE, BENCH, "x")
COMMANDS = subjects.commands(SITE, BENCH, "x")
RANGES = 'transmit = ["100-1FF", "x18DA0000-18DAFFFF"]'

T = TypeVar("T")


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


def connected(url: str, job: Callable[[Client], Awaitable[T]]) -> T:
    async def done() -> T:
        client = await connect(Server(url=url), "test")
        try:
            return await job(client)
        finally:
            await client.close()

    return asyncio.run(done())


def last(url: str, subject: str) -> Any:
    """The last message of a subject."""

    async def found(client: Client) -> Any:
        try:
            return await client.jetstream().get_last_msg(streams.VALUES.name, subject)
        except NotFoundError:
            return None

    return connected(url, found)


def state(url: str) -> BenchState | None:
    message = last(url, STATE)
    return None if message is None else parse_state(message.headers, message.data)


def ask(url: str, body: str, **headers: str) -> Answer:
    """The answer to a request to transmit."""

    async def asked(client: Client) -> Answer:
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = await client.request(COMMANDS, body.encode(), 10, headers=given or None)
        return parse_answer(answer.data)

    return connected(url, asked)


def test_the_state_of_a_channel_is_the_last_value(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        wait_until(lambda: (told := state(nats.url)) and told.state.state == "active", "it is told")
        told = state(nats.url)
        assert told is not None
        assert (told.lost, told.state.clients, told.state.connected) == (0, [], [])
        assert abs(time.time() - told.time_ns / 1e9) < 60
        with Bus("x", "virtual", exclusive=True):
            wait_until(lambda: (told := state(nats.url)) and told.state.exclusive, "it has changed")
    ended = state(nats.url)
    assert ended is not None
    assert (ended.state.state, ended.state.ended) == ("error", True)
    assert "ended" in ended.state.reason


def test_a_channel_that_is_gone_is_told(runtime: Runtime, tmp_path: Path, nats: NatsServer) -> None:
    with bridged(runtime, tmp_path, nats.url):
        wait_until(lambda: (told := state(nats.url)) and told.state.state == "active", "it is told")
        pid = status_of(runtime).channels[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(
                lambda: (told := state(nats.url)) and told.state.state == "error", "it is told"
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: (told := state(nats.url)) and told.state.state == "active", "it is back")


def test_a_request_is_answered_as_send_would_be(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url, RANGES), Bus("x", "virtual") as bus:
        wait_connected(runtime)
        assert ask(nats.url, "123#DEADBEEF\n18DA00F1#01") == Answer(ok=True)
        received = [bus.recv(10), bus.recv(10)]
        assert [(each.arbitration_id, bytes(each.data)) for each in received if each] == [
            (0x123, b"\xde\xad\xbe\xef"),
            (0x18DA00F1, b"\x01"),
        ]
        with Bus("x", "virtual", exclusive=True):
            refused = ask(nats.url, "123#01")
            assert (refused.ok, refused.error) == (False, "operation")
            assert "exclusive" in refused.text
        assert ask(nats.url, "123#02", Can_Ttl_Ms="5000").ok  # the outlet is as new
        wait_until(lambda: bridge(runtime).commands == 2, "it is counted")
        assert bridge(runtime).refused == 1


#: Body and ``Can-Ttl-Ms`` of a request, and how it is answered.
REFUSED = [
    ("200#01", "1000", "permission", "200#01: the configuration permits 100-1FF"),
    ("123#01 200#01", "1000", "permission", "200#01"),
    ("00000123#01", "1000", "permission", "x18DA0000"),
    ("20000004#0000000000000000", "1000", "permission", "permits"),
    ("123", "1000", "malformed", "is not a CAN frame"),
    ("", "1000", "malformed", "1 to 64 frames"),
    ("123#01\n" * 65, "1000", "malformed", "1 to 64 frames, not 65"),
    ("123#" + "0" * 40_000, "1000", "malformed", "32768 bytes at most"),
    ("123#01", "0", "malformed", "Can-Ttl-Ms must be 1 to 60000"),
    ("123#01", "soon", "malformed", "Can-Ttl-Ms"),
]


def test_what_may_not_be_sent_is_refused(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url, RANGES), Bus("x", "virtual") as bus:
        wait_connected(runtime)
        for body, ttl, error, found in REFUSED:
            answer = ask(nats.url, body, Can_Ttl_Ms=ttl)
            assert (answer.ok, answer.error) == (False, error), body[:80]
            assert found in answer.text
        assert ask(nats.url, "1FF#00").ok
        received = bus.recv(10)
        assert received is not None
        assert received.arbitration_id == 0x1FF


def test_a_request_that_expires_is_not_sent_later(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url, RANGES), Bus("x", "virtual") as bus:
        wait_connected(runtime)
        assert ask(nats.url, "100#00").ok
        assert bus.recv(10)
        pid = status_of(runtime).channels[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            late = ask(nats.url, "101#00", Can_Ttl_Ms="100")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert not late.ok
        wait_until(lambda: _is_sent(nats.url), "it sends again", PATIENCE_S)
        found = bus.recv(10)
        assert found is not None
        assert found.arbitration_id == 0x102


def _is_sent(url: str) -> bool:
    return ask(url, "102#00").ok


def test_nobody_listens_to_requests_unless_told(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    with bridged(runtime, tmp_path, nats.url):
        wait_connected(runtime)
        with pytest.raises(NoRespondersError):
            ask(nats.url, "123#01")


def test_signals_are_told_when_they_change(
    runtime: Runtime, tmp_path: Path, nats: NatsServer
) -> None:
    pytest.importorskip("cantools", reason="needs the extra signals; make ecosystem has it")
    (tmp_path / "car.dbc").write_text(DATABASE)
    top = '[channels.x]\ninterface = "virtual"\ndatabase = ["car.dbc"]\n'
    more = "signals = true\nsignal_rate = 20.0"
    speed = subjects.signals(SITE, BENCH, "x", "Motion", "Speed")
    with bridged(runtime, tmp_path, nats.url, more, top=top):
        wait_connected(runtime)
        send(range(3000))  # the speed is in the fourth byte
        wait_for(runtime, 3000)
        wait_until(lambda: (_sample(nats.url, speed) or Sample(0, -1)).value == 2999 % 256, "it is")
        sample = _sample(nats.url, speed)
        assert sample is not None
        assert sample.unit == "km/h"
        assert sample.time_ns > 0
        kill_bridge(runtime)
        send(range(3000, 3001))
        wait_until(lambda: (_sample(nats.url, speed) or Sample(0, -1)).value == 3000 % 256, "it is")


def _sample(url: str, subject: str) -> Sample | None:
    message = last(url, subject)
    return None if message is None else parse_sample(message.data)


DATABASE = """VERSION ""
NS_ :
BS_:
BU_: A
BO_ 1 Motion: 4 A
 SG_ Speed : 24|8@1+ (1,0) [0|255] "km/h" A
"""
