"""Opens that fail: at once, with the reason, and with nothing left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canbroker import Bus, CanError, CanInitializationError, CanTimeoutError
from canbroker.bus.line import Line
from canbroker.bus.receiving import Reception
from canbroker.delivery.order import SLOW, Loss
from canbroker.delivery.subscriber import Subscriber
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What brokers are told on their lines."""
    methods: list[str] = []
    tell = Line.tell

    def note(line: Line, method: str, *arguments: Any) -> None:
        methods.append(method)
        tell(line, method, *arguments)

    monkeypatch.setattr(Line, "tell", note)
    return methods


def test_who_has_not_attached_does_not_detach(
    runtime: Runtime, told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would wait for the answer of a broker that is not there."""
    monkeypatch.setenv("CANBROKER_AUTOSTART", "0")
    with pytest.raises(CanInitializationError, match="no broker"):
        Bus("x", "virtual")
    with pytest.raises(CanInitializationError, match="no broker"):
        Bus("x", "virtual", broker=f"ipc://{tmp_path}/broker")
    monkeypatch.delenv("CANBROKER_AUTOSTART")
    with pytest.raises(CanInitializationError, match="bitrate"):
        Bus("x", "virtual", bitrate="nonsense")
    with pytest.raises(CanError):
        Bus("x", "nonsense")
    assert told == []
    Bus("x", "virtual").shutdown()
    assert told == ["detach"]


def test_who_has_attached_does(
    runtime: Runtime, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker, which has not seen it, would wait for as long as this process lives."""

    def refuse(*_: object) -> None:
        raise CanTimeoutError("no answer")

    with Bus("x", "virtual"):
        with monkeypatch.context() as patch:
            patch.setattr(Subscriber, "subscribe", refuse)
            with pytest.raises(CanInitializationError, match="no answer"):
                Bus("x", "virtual")
        assert told == ["detach"]
        (channel,) = status_of(runtime).channels
        wait_until(lambda: len(status_of(runtime).channels[0].clients) == 1, "one is left")
        assert channel.name == "virtual.x"


def test_a_loss_while_it_is_opened(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """``on_slow="disconnect"`` ends a bus that is not there yet."""
    remember = Reception.remember

    def lose(reception: Reception, deadline: int | None) -> None:
        reception.subscriber.order.losses.append((0, Loss(1, 5, 3, SLOW)))
        reception._enqueue()
        remember(reception, deadline)

    with Bus("x", "virtual"):
        monkeypatch.setattr(Reception, "remember", lose)
        with pytest.raises(CanInitializationError, match="too slow"):
            Bus("x", "virtual", on_slow="disconnect")
