"""Asking a channel for missing frames, with the time passed in and a scripted channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from canbroker.delivery.asker import Asker
from canbroker.delivery.order import Order, Part
from canbroker.model.frame import EchoFrame
from canbroker.system.clock import MILLISECOND, SECOND
from canbroker.transport.address import IpcAddress
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.replay import Replay, Replayed, encode_frames
from canbroker.wire.stream import pack_frame

TOPIC = b"can0/rx;"
PATIENCE_NS = 20 * SECOND


class Exchange:
    """An asker whose order misses frames 0 to 4, and the socket of the channel."""

    def __init__(self, context: Context, address: IpcAddress) -> None:
        self.now_ns = 1_000 * SECOND
        self.router = context.replier(address)
        self.waiter = Waiter()
        self.waiter.add(self.router)
        self.asker = Asker(context, address, "c1", now=lambda: self.now_ns)
        self.order = Order(repairs=True)
        self.order.begin(1, 0)
        self.order.add(Part(1, 5, ()))
        self._caller = (b"", 0)

    def mend(self, after_ns: int = 0) -> bool:
        """``after_ns``: how much later than the last time it is done."""
        self.now_ns += after_ns
        return self.asker.mend(self.order, TOPIC)

    def asked(self) -> Replay:
        """The next request."""
        assert self.waiter.wait(PATIENCE_NS)
        identity, body = self.router.recv_multipart()
        request = control.decode_request(body)
        self._caller = identity, request.id
        params = control.decode_params(request, {"replay": Replay})
        assert isinstance(params, Replay)
        return params

    def answer(self, result: msgspec.Struct) -> None:
        """Answers the request that was read last."""
        identity, number = self._caller
        self.router.send_multipart([identity, control.encode_reply(number, result)])
        self.asker.wait(PATIENCE_NS)

    def is_silent(self) -> bool:
        return not self.waiter.wait(0)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    context = Context()
    exchange = Exchange(context, IpcAddress(tmp_path / "ctl"))
    yield exchange
    exchange.asker.close()
    exchange.router.close()
    context.close()


def frames(count: int) -> msgspec.Raw:
    packed = [pack_frame(EchoFrame(1, number, 0, b"", "")) for number in range(count)]
    return encode_frames([msgspec.Raw(frame) for frame in packed])


def causes(order: Order) -> list[str]:
    return [loss.cause for _, loss in order.take()[1]]


def test_a_gap_is_filled_by_the_answer(exchange: Exchange) -> None:
    assert not exchange.mend()
    asked = exchange.asked()
    assert (asked.epoch, asked.first_seq, asked.end_seq) == (1, 0, 5)
    assert (asked.topic, asked.client_id) == (TOPIC.decode(), "c1")
    exchange.answer(Replayed(0, True, frames(5)))
    assert exchange.mend()
    assert [frame.arbitration_id for frame in exchange.order.take()[0]] == [0, 1, 2, 3, 4]
    assert not exchange.mend(), "nothing is missing any more"


def test_a_request_without_an_answer_is_repeated(exchange: Exchange) -> None:
    exchange.mend()
    exchange.asked()
    assert exchange.asker.due_ns() == exchange.now_ns + SECOND // 2
    exchange.mend(SECOND // 2 - 1)
    assert exchange.is_silent()
    exchange.mend(1)
    exchange.asked()


def test_a_busy_channel_is_asked_again(exchange: Exchange) -> None:
    exchange.mend()
    exchange.asked()
    exchange.answer(control.ErrorResult("busy", "too many ask"))
    assert not exchange.mend(100 * MILLISECOND)
    assert exchange.order.gap is not None
    exchange.mend(SECOND)
    exchange.asked()


def test_an_error_ends_the_gap_with_its_reason(exchange: Exchange) -> None:
    exchange.mend()
    exchange.asked()
    exchange.answer(control.ErrorResult("gone", "nothing is left of epoch 1"))
    assert exchange.mend()
    assert causes(exchange.order) == ["nothing is left of epoch 1"]


def test_a_late_answer_to_an_earlier_request_changes_nothing(exchange: Exchange) -> None:
    exchange.mend()
    exchange.asked()
    exchange.mend(SECOND)
    exchange.answer(Replayed(0, True, frames(5)))
    assert not exchange.mend()
    exchange.asked()
    exchange.answer(Replayed(0, True, frames(5)))
    assert exchange.mend()


def test_a_channel_that_never_answers_is_given_up(exchange: Exchange) -> None:
    exchange.mend()
    for _ in range(10):
        assert not exchange.mend(SECOND)
    assert exchange.mend(1)
    assert causes(exchange.order) == ["the channel does not say what they were"]


def test_a_reader_that_has_not_looked_does_not_give_up(exchange: Exchange) -> None:
    """It was stopped, or had no room; the answer may have been lost with the channel's process."""
    exchange.mend()
    assert not exchange.mend(60 * SECOND)
    assert exchange.order.gap is not None
    exchange.asked()
    assert not exchange.mend(SECOND)
    exchange.asked()
    exchange.answer(Replayed(0, True, frames(5)))
    assert exchange.mend()
    assert len(exchange.order.frames) == 5
