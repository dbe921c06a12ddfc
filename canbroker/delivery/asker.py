"""Asks a channel actor for frames of the past, without waiting for it."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from canbroker.delivery.order import Gap, Order
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.transport.address import Address
from canbroker.transport.links import Link
from canbroker.transport.sockets import Context, Socket
from canbroker.transport.waiter import Descriptor
from canbroker.wire import DECODE_ERRORS, WireError, control
from canbroker.wire.replay import History, Past, Replay, Replayed, decode_frames

#: An actor answers within milliseconds. One that has just been replaced is not there yet.
_ASK_AGAIN_NS: Final = clock.SECOND // 2
_GIVE_UP_NS: Final = 10 * clock.SECOND

_R = TypeVar("_R", Past, Replayed)


class Asker:
    """The requests of one subscriber for what it has missed. One thread at a time."""

    def __init__(self, context: Context, endpoint: Address, client_id: str = "") -> None:
        """``endpoint``: control, of the channel; ``client_id``: who asks, for its account."""
        self._link = Link(context, endpoint)
        self._client_id = client_id
        self._id = 0
        self._gap: Gap | None = None  # that the last request was for
        self._since_ns = 0  # it has not been answered since
        self._again_ns = 0

    @property
    def socket(self) -> Socket:
        return self._link.socket

    def close(self) -> None:
        self._link.close()

    def due_ns(self) -> int:
        """When :meth:`mend` has something to do that no answer tells it."""
        return self._again_ns

    def mend(self, order: Order, topic: bytes) -> bool:
        """Sees to the gap that ``order`` has, on the route ``topic``; ``True``: it has changed."""
        gap = order.gap
        if gap is None:
            return False
        now = clock.monotonic_ns()
        if gap != self._gap:
            self._gap, self._since_ns = gap, now
            self._ask(gap, topic, now)
        while (body := self._link.receive()) is not None:
            if self._answered(body, gap, order):
                return True
        if now - self._since_ns > _GIVE_UP_NS:
            order.gone("the channel does not say what they were")
            return True
        if now >= self._again_ns:
            self._ask(gap, topic, now)
        return False

    def history(
        self, topic: bytes, seconds: float, wake: Descriptor | None, deadline: int | None
    ) -> tuple[list[EchoFrame], int] | None:
        """The frames of the last ``seconds`` that pass the filters of ``topic``, and the number
        of the route's next one; ``None``: there was no answer by ``deadline``.

        :raises WireError: the answer is not of this protocol.
        """
        frames: list[EchoFrame] = []
        next_seq: int | None = None
        params = History(topic=topic.decode(), seconds=seconds)
        while (past := self._call(params, wake, deadline)) is not None:
            frames += decode_frames(past.frames)
            if next_seq is None:
                next_seq = past.next_seq
            if past.after == past.until:
                return frames, next_seq
            params.after, params.until = past.after, past.until
        return None

    def _call(self, params: History, wake: Descriptor | None, deadline: int | None) -> Past | None:
        self._id += 1
        self._link.send(control.encode_request(self._id, "history", params))
        while True:
            while (body := self._link.receive()) is not None:
                reply = control.decode_reply(body)
                if reply.id == self._id:
                    return _result(reply, Past)
            if clock.remaining_ns(deadline) == 0:
                return None
            self._link.wait(wake, clock.remaining_ns(deadline))

    def _ask(self, gap: Gap, topic: bytes, now: int) -> None:
        self._id += 1
        self._again_ns = now + _ASK_AGAIN_NS
        params = Replay(
            topic=topic.decode(),
            epoch=gap.epoch,
            first_seq=gap.first,
            end_seq=gap.end,
            client_id=self._client_id,
        )
        self._link.send(control.encode_request(self._id, "replay", params))

    def _answered(self, body: bytes, gap: Gap, order: Order) -> bool:
        """Takes a reply, which may be a late one to another request."""
        reply = control.decode_reply(body)
        if reply.id != self._id:
            return False
        if not reply.ok:
            error = _error(reply)
            if error.code == "busy":
                return False
            order.gone(error.message)
            return True
        answer = _result(reply, Replayed)
        frames = decode_frames(answer.frames)
        order.found(gap, answer.first_seq, frames, complete=answer.complete)
        return True


def _error(reply: control.Reply) -> control.ErrorResult:
    """:raises WireError: what the reply says is no error of the protocol."""
    try:
        return msgspec.msgpack.decode(reply.result, type=control.ErrorResult)
    except DECODE_ERRORS as error:
        raise WireError(f"answer of the channel: {error}") from error


def _result(reply: control.Reply, kind: type[_R]) -> _R:
    """:raises WireError: it is an error, or not of this kind."""
    try:
        if not reply.ok:
            raise WireError(_error(reply).message)
        return msgspec.msgpack.decode(reply.result, type=kind)
    except DECODE_ERRORS as error:
        raise WireError(f"answer of the channel: {error}") from error
