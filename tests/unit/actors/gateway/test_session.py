"""What a session does with a client's socket that is full or away, with the time passed in."""

from __future__ import annotations

from collections import deque
from typing import Any

from canbroker.actors.gateway.session import GRACE_NS, UNKNOWN, Session
from canbroker.actors.gateway.upstream import Parts
from canbroker.transport.front import Sent

SECRET = b"can0.rx/" + b"0" * 32


class ScriptedLine:
    """Of it, sessions use these methods."""

    def __init__(self) -> None:
        self.has_more = False

    def again(self) -> None:
        self.has_more = True


class ScriptedUpstream:
    """Messages for the client; the probe is one that it ignores."""

    probe: Parts = (b"", b"")

    def __init__(self, *messages: bytes) -> None:
        self.messages = deque(messages)
        self.line: Any = ScriptedLine()
        self.closed = False

    def forward(self, body: bytes) -> None:
        raise NotImplementedError

    def receive(self) -> Parts | None:
        return (self.messages.popleft(),) if self.messages else None

    def step(self, now_ns: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Client:
    """A client's socket: what it was sent, and what becomes of the next message."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.outcome = Sent.QUEUED

    def send(self, secret: bytes, parts: Parts) -> Sent:
        assert secret == SECRET
        if self.outcome is Sent.QUEUED:
            self.got.append(b"|".join(parts))
        return self.outcome


def session(upstream: ScriptedUpstream) -> Session:
    user: Any = None
    socket: Any = "can0.rx"
    return Session(SECRET, socket, "bob", user, upstream)


def test_messages_are_passed_on_in_order() -> None:
    client, made = Client(), session(ScriptedUpstream(b"1", b"2", b"3"))
    made.relay(client.send, 0)
    assert client.got == [b"1", b"2", b"3"]
    assert not made.stalled


def test_a_session_gives_way_to_others_and_goes_on() -> None:
    upstream = ScriptedUpstream(*[b"%d" % number for number in range(100)])
    client, made = Client(), session(upstream)
    made.relay(client.send, 0)
    assert len(client.got) < 100
    assert upstream.line.has_more
    upstream.line.has_more = False
    made.relay(client.send, 0)
    assert client.got == [b"%d" % number for number in range(100)]
    assert not upstream.line.has_more


def test_a_full_client_keeps_one_message_and_the_rest_stays_upstream() -> None:
    upstream = ScriptedUpstream(b"1", b"2", b"3")
    client, made = Client(), session(upstream)
    client.outcome = Sent.FULL
    made.relay(client.send, 0)
    assert made.stalled
    assert list(upstream.messages) == [b"2", b"3"]
    made.retry(client.send, GRACE_NS * 100)
    assert not made.is_gone(GRACE_NS * 100), "it is full, not away"
    client.outcome = Sent.QUEUED
    made.retry(client.send, GRACE_NS * 100)
    made.relay(client.send, GRACE_NS * 100)
    assert client.got == [b"1", b"2", b"3"]


def test_a_client_that_is_away_has_a_second_to_come_back() -> None:
    client, made = Client(), session(ScriptedUpstream(b"1"))
    client.outcome = Sent.GONE
    made.relay(client.send, 0)
    made.retry(client.send, GRACE_NS)
    assert not made.is_gone(GRACE_NS)
    client.outcome = Sent.QUEUED
    made.retry(client.send, GRACE_NS)
    assert client.got == [b"1"]
    assert not made.is_gone(GRACE_NS * 10)


def test_a_client_that_stays_away_is_gone() -> None:
    client, made = Client(), session(ScriptedUpstream(b"1"))
    client.outcome = Sent.GONE
    made.relay(client.send, 0)
    made.retry(client.send, GRACE_NS)
    assert made.is_gone(GRACE_NS + 1)


def test_a_full_connection_that_flaps_begins_its_second_anew() -> None:
    client, made = Client(), session(ScriptedUpstream(b"1"))
    for outcome, at_ns in ((Sent.GONE, 0), (Sent.FULL, GRACE_NS), (Sent.GONE, GRACE_NS)):
        client.outcome = outcome
        made.relay(client.send, at_ns)
        made.retry(client.send, at_ns)
    assert not made.is_gone(GRACE_NS * 2)
    assert made.is_gone(GRACE_NS * 2 + 1)


def test_a_silent_client_is_looked_for_when_a_connection_has_ended() -> None:
    client, made = Client(), session(ScriptedUpstream())
    made.connection = 7
    made.look(client.send, 0)
    assert client.got == [b"|"], "it is there"
    assert made.connection == UNKNOWN
    client.outcome = Sent.GONE
    made.look(client.send, 0)
    assert made.is_gone(GRACE_NS + 1)


def test_another_socket_upstream_takes_over() -> None:
    before, after = ScriptedUpstream(b"stale"), ScriptedUpstream(b"fresh")
    client, made = Client(), session(before)
    client.outcome = Sent.FULL
    made.relay(client.send, 0)
    made.replace(after)
    assert before.closed
    client.outcome = Sent.QUEUED
    made.relay(client.send, 0)
    assert client.got == [b"fresh"]


def test_the_secret_is_not_shown() -> None:
    made = session(ScriptedUpstream())
    made.user = _Bob()  # type: ignore[assignment]
    assert SECRET.decode() not in repr(made)
    assert "0" * 32 not in repr(made)


class _Bob:
    class grant:  # noqa: N801
        name = "bob"
