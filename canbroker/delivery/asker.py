"""Asks a channel actor for frames of the past, without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from canbroker.delivery.order import Gap, Order
from canbroker.delivery.window import FAR_AT_ONCE, Window
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.transport.address import Address, TcpAddress
from canbroker.transport.calls import ControlError, ControlLink, result_of
from canbroker.transport.sockets import Context, Socket, readable
from canbroker.transport.waiter import Descriptor
from canbroker.wire import WireError, control
from canbroker.wire.replay import History, Past, Replay, Replayed, decode_frames

#: An actor answers within milliseconds, unless it is just being replaced.
_ASK_AGAIN_NS: Final = clock.SECOND // 2
_GIVE_UP_NS: Final = 10 * clock.SECOND

#: A reader that has not looked for so long cannot say that there was no answer.
_PAUSE_NS: Final = 2 * clock.SECOND


class Asker:
    """One subscriber's requests for frames that it has missed. One thread at a time."""

    def __init__(
        self,
        context: Context,
        endpoint: Address,
        client_id: str = "",
        *,
        now: Callable[[], int] = clock.monotonic_ns,
    ) -> None:
        """
        :param endpoint: the channel's control socket.
        :param client_id: the client that the channel accounts the frames to.
        :param now: the time, in ns.
        :raises CanInitializationError, CanOperationError: cannot open a socket.
        """
        is_far = isinstance(endpoint, TcpAddress)
        self.lasting = is_far
        self._link = ControlLink(context, endpoint)
        self._client_id = client_id
        self._now = now
        self._window = Window(FAR_AT_ONCE if is_far else 1)
        self._since_ns = 0  # when the gap was first asked for, or became smaller
        self._again_ns = 0
        self._looked_ns = now()

    @property
    def socket(self) -> Socket:
        return self._link.socket

    def readable(self) -> bool:
        """Whether an answer has arrived."""
        return readable(self._link.socket)

    def wait(self, timeout_ns: int | None) -> None:
        """Waits until an answer may have arrived, or ``timeout_ns`` is over."""
        self._link.wait(None, timeout_ns)

    def close(self) -> None:
        self._link.close()

    def due_ns(self) -> int:
        """When :meth:`mend` has to be called even if no answer arrives (monotonic)."""
        return self._again_ns

    def mend(self, order: Order, topic: bytes) -> bool:
        """Asks for the frames in the gap of ``order``, and fills it with those that arrived.

        :param topic: the route that ``order`` is of.
        :returns: whether ``order`` has changed.
        :raises WireError: an answer does not follow the protocol.
        """
        gap = order.gap
        if gap is None:
            return False
        now = self._now()
        is_back = now - self._looked_ns > _PAUSE_NS
        self._looked_ns = now
        if self._window.turn_to(gap) or is_back:
            self._progress(now)
        self._ask(gap, topic)
        while (reply := self._link.reply()) is not None:
            if self._window.is_awaited(reply.id) and self._fill(reply, order):
                return True
        if now - self._since_ns > _GIVE_UP_NS:
            order.gone("the channel does not say what they were")
            return True
        if now >= self._again_ns:
            self._again_ns = now + _ASK_AGAIN_NS
            self._window.restart()
            self._ask(gap, topic)
        return False

    def history(
        self,
        topic: bytes,
        seconds: float,
        wake: Descriptor | None,
        deadline: int | None,
        on_frames: Callable[[int], object] = lambda _: None,
        before_ns: int | None = None,
    ) -> tuple[list[EchoFrame], int] | None:
        """The frames of the last ``seconds`` that pass the filters of ``topic``, and the number
        of the route's next frame; ``None`` if there was no answer by ``deadline``.

        :param on_frames: is told the number of frames in each answer.
        :param before_ns: later answers are not asked for once there is a frame of this time (wall
            clock), or of a later one.
        :raises WireError: the answer is an error, or does not follow the protocol.
        """
        frames: list[EchoFrame] = []
        next_seq: int | None = None
        params = History(topic=topic.decode(), seconds=seconds)
        while (past := self._past(params, wake, deadline)) is not None:
            known = len(frames)
            frames += decode_frames(past.frames)
            on_frames(len(frames) - known)
            if next_seq is None:
                next_seq = past.next_seq
            is_late = before_ns is not None and frames and frames[-1].timestamp_ns >= before_ns
            if past.after == past.until or is_late:
                return frames, next_seq
            params.after, params.until = past.after, past.until
        return None

    def _past(self, params: History, wake: Descriptor | None, deadline: int | None) -> Past | None:
        try:
            return self._link.call("history", params, Past, deadline, wake)
        except ControlError as error:
            raise WireError(str(error)) from error

    def _progress(self, now: int) -> None:
        self._since_ns = now
        self._again_ns = now + _ASK_AGAIN_NS

    def _ask(self, gap: Gap, topic: bytes) -> None:
        while (wanted := self._window.wanted()) is not None:
            params = Replay(
                topic=topic.decode(),
                epoch=gap.epoch,
                first_seq=wanted.first,
                end_seq=wanted.end,
                client_id=self._client_id,
            )
            self._window.asked(self._link.request("replay", params), wanted)

    def _fill(self, reply: control.Reply, order: Order) -> bool:
        """Hands answers to ``order``, in order; returns whether it has changed."""
        try:
            self._window.answered(reply.id, result_of(reply, Replayed, "replay"))
        except ControlError as error:
            if error.code == "busy":
                return False
            order.gone(str(error))
            return True
        has_changed = False
        while (gap := order.gap) is not None and (taken := self._window.take()) is not None:
            stretch, answer = taken
            frames = decode_frames(answer.frames)
            end = answer.first_seq + len(frames)
            is_short = stretch.end is not None and end < stretch.end  # the channel has no more
            complete = answer.complete and (stretch.end == gap.end or is_short)
            order.found(gap, answer.first_seq, frames, complete=complete, then=answer.then)
            has_changed = True
            if order.gap is not None and self._window.turn_to(order.gap):
                self._progress(self._now())
        return has_changed
