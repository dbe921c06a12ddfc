"""A session by scripts: what it asks of JetStream at its beginning, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NotFoundError, ServiceUnavailableError

from canbroker.actors.nats import session
from canbroker.actors.nats.line import Last
from canbroker.actors.nats.session import Session, TroubleError
from canbroker.jetstream.streams import FRAMES


class JetStream:
    """Answers by script. ``asked``: what it was asked."""

    def __init__(self, **answers: Callable[[], Any]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def find_stream_name_by_subject(self, subject: str) -> Any:
        return await self._answer(f"names {subject}")

    async def stream_info(self, name: str) -> Any:
        return await self._answer(f"info {name}")

    async def get_last_msg(self, name: str, subject: str) -> Any:
        return await self._answer(f"last {name} {subject}")

    async def _answer(self, question: str) -> Any:
        self.asked.append(question)
        answer = self._answers.get(question.partition(" ")[0])
        if answer is None:
            await asyncio.sleep(60)  # forgotten
            raise AssertionError(question)
        return answer()


class Line:
    """Of a channel that has nothing in the stream."""

    subject = "can.v1.lab.bench.can0.rx"
    most = 1

    def __init__(self) -> None:
        self.last: Last | None = None

    def resume(self, last: Last) -> None:
        self.last = last


def info(name: str, *subjects: str) -> Any:
    config = FRAMES.config()
    config.name, config.subjects = name, [*subjects]
    return SimpleNamespace(config=config, cluster=SimpleNamespace(name="benches"))


def nothing() -> Any:
    raise NotFoundError


def begin(jetstream: JetStream, stream: str = "") -> tuple[Session, Line]:
    """A session that has begun."""

    async def subscribe(*_: Any, **__: Any) -> None: ...

    line: Any = Line()
    client: Any = SimpleNamespace(
        jetstream=lambda **_: jetstream,
        new_inbox=lambda: "inbox",
        subscribe=subscribe,
        max_payload=1 << 20,
    )
    made = Session(client, [line], 64, stream)
    asyncio.run(made.begin())
    return made, line


def test_which_stream_has_the_subject_is_asked_once() -> None:
    jetstream = JetStream(
        names=lambda: "A", info=lambda: info("A", "can.v1.lab.*.*.rx"), last=nothing
    )
    made, line = begin(jetstream)
    assert jetstream.asked == [
        "names can.v1.lab.bench.can0.rx",
        "info A",
        "last A can.v1.lab.bench.can0.rx",
    ]
    assert (made.stream, line.last) == ("A", Last(None, 0))


def test_a_stream_that_is_known_needs_no_leader_of_the_cluster() -> None:
    jetstream = JetStream(info=lambda: info("A", "x", "can.v1.>"), last=nothing)
    made, line = begin(jetstream, "A")
    assert jetstream.asked == ["info A", "last A can.v1.lab.bench.can0.rx"]
    assert (made.stream, line.last) == ("A", Last(None, 0))


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_stream_that_has_the_subject_no_more_is_asked_for(is_gone: bool) -> None:
    answers = iter([None if is_gone else info("A", "can.v1.other.*.*.rx")])

    def told() -> Any:
        found = next(answers, info("B", "can.v1.lab.*.*.rx"))
        return nothing() if found is None else found

    jetstream = JetStream(names=lambda: "B", info=told, last=nothing)
    made, _ = begin(jetstream, "A")
    assert jetstream.asked[:3] == ["info A", "names can.v1.lab.bench.can0.rx", "info B"]
    assert made.stream == "B"


def test_a_question_that_is_forgotten_is_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_AGAIN_S", 0.01)
    jetstream = JetStream(info=lambda: info("A", "can.v1.>"), last=nothing)
    forgetful = jetstream.stream_info
    left = 3

    async def stream_info(name: str) -> Any:
        nonlocal left
        left -= 1
        return await (forgetful(name) if left < 0 else asyncio.sleep(60))

    monkeypatch.setattr(jetstream, "stream_info", stream_info)
    made, _ = begin(jetstream, "A")
    assert made.stream == "A"


def late() -> Any:
    raise NatsTimeoutError


def leaderless() -> Any:
    raise ServiceUnavailableError(503, "temporarily unavailable", 10008)


def without() -> Any:
    raise ServiceUnavailableError(503, "not enabled", 10076)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (late, "JetStream does not answer: timeout"),
        (leaderless, "JetStream has no leader at the moment"),
        (without, "JetStream is not enabled"),
    ],
)
def test_what_jetstream_does_not_do_is_said(answer: Callable[[], Any], said: str) -> None:
    with pytest.raises(TroubleError, match=said):
        begin(JetStream(info=answer), "A")
