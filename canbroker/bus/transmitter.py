"""Sending frames to a channel: credit, waiting for answers, and which of them may never come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from canbroker.bus.account import Account
from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.failure import summary
from canbroker.bus.unanswered import Failed, Unanswered
from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.model.frame import Frame, describe
from canbroker.system import clock
from canbroker.transport.waiter import Descriptor
from canbroker.wire import WireError
from canbroker.wire.stream import StateEvent
from canbroker.wire.transmit import (
    CREDIT,
    Reply,
    Status,
    decode_reply,
    encode_request,
    encode_unhurried,
)

#: How often a wait for the actor checks that it still lives.
_LOOK_NS: Final = clock.SECOND // 4

#: How often a sender looks for answers and at the channel's state. At every frame, most of the time
#: would be spent on that.
_LOOK_AGAIN_NS: Final = clock.MILLISECOND

#: A channel that refuses frames answers within this time, even on a busy machine.
_ANSWER_NS: Final = clock.SECOND

#: The driver may take a frame just before it expires; its answer may take this long to arrive.
_GRACE_NS: Final = 50 * clock.MILLISECOND

#: Answers come at least this often while a bus takes frames.
_DOUBT_NS: Final = 2 * clock.SECOND

#: A request that expires then has expired long ago.
_LONG_AGO: Final = 1


class TransmitLink(Protocol):
    """What a transmitter needs of :class:`canbroker.transport.links.KeepingLink`."""

    def send(self, request: bytes) -> bool: ...

    def receive(self) -> bytes | None: ...

    def done(self) -> None: ...

    def wait(self, wake: Descriptor | None, timeout_ns: int | None) -> None: ...

    @property
    def interruptions(self) -> int: ...

    def renew(self) -> None: ...

    def close(self) -> None: ...


class WatchedChannel(Protocol):
    """What a transmitter needs of :class:`canbroker.bus.channel_watch.ChannelWatch`."""

    epoch: int
    state: StateEvent
    clock: ChannelClock

    def problem(self) -> str | None: ...

    def silent(self) -> bool: ...


class Transmitter(Account):
    """Sends frames to a channel actor, and knows which of them may never be answered.

    One thread at a time, as of :class:`Account`. ``token`` is that of the last request.
    """

    def __init__(
        self,
        link: TransmitLink,
        client_id: str,
        watch: WatchedChannel,
        wake: Callable[[], Descriptor | None],
        now: Callable[[], int] = clock.monotonic_ns,
    ) -> None:
        """``wake()`` ends every wait when :attr:`closing` is set. If it is ``None``, waits look
        at that now and then. ``now``: the time, in ns."""
        super().__init__()
        self.closing = False
        self._client_id = client_id
        self._watch = watch
        self._wake = wake
        self._now = now
        self.token = 0
        self._epoch = watch.epoch
        self._look_ns = 0
        self._locked = False
        self._unhurried = 0  # the token of the last request that may be answered later
        self._link = link
        self._interruptions = 0
        self._doubtful = 0  # requests up to this token may have been lost with a connection
        self._doubted_ns = 0  # since when no answer has come
        self._stale_ns = 0  # when the last answer came, if it was for an actor that was replaced

    def send(
        self,
        frames: Sequence[Frame],
        deadline: int | None,
        *,
        taken: bool,
        due_ns: int = 0,
    ) -> None:
        """Sends frames as one request, at most ``MAX_FRAMES`` of the protocol.

        Waits for room in the queue until ``deadline``; if ``taken``, then until the driver has
        taken the frames. A later failure is raised by the next call. The channel keeps the frames
        until ``due_ns``; 0 is at once.

        :raises CanTimeoutError: that did not happen in time; none of the frames is sent later.
        :raises CanOperationError: the channel is down, or an earlier frame has failed.
        """
        now = self._now()
        looks = now >= self._look_ns
        if looks:
            self._look_ns = now + _LOOK_AGAIN_NS
            self.collect()
        self.raise_failures()
        while self.unanswered + self._asking + len(frames) > CREDIT:
            self._wait(deadline, "the transmit queue is full")
            self.raise_failures()
        if looks:
            self._look(frames)
        self._follow_epoch()
        if not (taken and deadline) and self._locked:
            # The channel refuses it at once, and this call should raise that.
            taken, deadline = True, self._now() + _ANSWER_NS
        if taken and deadline:
            self._await(self._request(frames, deadline, None, due_ns), deadline)
        elif due_ns or self.on_taken is not None:
            self._request(frames, 0, None, due_ns)
        else:
            self._request_unhurried(frames)

    def offer(self, frames: Sequence[Frame], expires_ns: int, failed: Failed) -> Unanswered | None:
        """Sends frames if there is room. Never waits, and raises no failure of other requests.

        They are not sent later than ``expires_ns``; ``failed`` is called for those that fail.

        :raises CanOperationError: the channel is down.
        """
        self.collect()
        if self.unanswered + self._asking + len(frames) > CREDIT:
            return None
        self._look(frames)
        self._follow_epoch()
        return self._request(frames, expires_ns, failed)

    def wait_until_answered(self, request: Unanswered, deadline: int) -> None:
        """Waits until a request is answered, or the time is ``deadline``.

        :raises CanOperationError: the bus is being closed.
        """
        self.collect()
        try:
            while not request.answered:
                self._wait(deadline, "")
        except CanTimeoutError:
            return

    def flush(self, deadline: int | None, *, closing: bool = False) -> None:
        """Waits until every frame is answered; ``closing``: this thread is closing the bus.

        :raises CanTimeoutError: not all were by ``deadline``.
        :raises CanOperationError: one of them has failed.
        """
        self.collect()
        self._ask()
        while self.unanswered:
            self._wait(deadline, f"{self.unanswered} frames are not acknowledged", closing=closing)
        if self._stale_ns and not closing:
            self._meet_successor(deadline)
        self.raise_failures()

    def follow(self) -> None:
        """Begins with the epoch that the channel is in now."""
        self._epoch = self._watch.epoch

    def pending(self) -> int:
        """Frames that are not answered, as of now."""
        self.collect()
        self._follow_epoch()
        return self.unanswered

    def collect(self) -> None:
        """Handles the answers that have arrived.

        :raises CanOperationError: one of them does not follow the protocol.
        """
        while (body := self._link.receive()) is not None:
            try:
                reply = decode_reply(body)
            except WireError as error:
                self._link.done()
                raise CanOperationError(f"the channel: {error}") from error
            is_stale = reply.status == Status.STALE and self._is_awaited(reply)
            self._stale_ns = self._now() if is_stale else 0
            self._book(reply)
            self._link.done()
            if self._doubtful:
                self._doubted_ns = self._now()

    def close(self) -> None:
        self._link.close()

    def _is_awaited(self, reply: Reply) -> bool:
        """Whether requests are under way that an answer may be to."""
        return bool(self._requests) and self._requests[0].token <= reply.token

    def _look(self, frames: Sequence[Frame]) -> None:
        """:raises CanOperationError: nothing can be sent now."""
        problem = self._watch.problem()
        if problem is not None:
            self._look_ns = 0
            raise CanOperationError(f"cannot send {describe(frames[0])}: {problem}")
        self._locked = self._is_locked()

    def _request(
        self, frames: Sequence[Frame], expires_ns: int, failed: Failed | None, due_ns: int = 0
    ) -> Unanswered:
        """Sends a request that is answered as soon as it can be."""
        self.token += 1
        expires_ns = self._watch.clock.deadline(expires_ns)
        origins = None
        if due_ns:
            due_ns, origins = self._watch.clock.deadline(due_ns), ()  # all are ours
        body = encode_request(
            self._client_id, self.token, expires_ns, frames, self._epoch, origins, due_ns
        )
        return self._post(body, Unanswered(self.token, frames, failed))

    def _request_unhurried(self, frames: Sequence[Frame]) -> None:
        """Sends a request whose answer may come later, with others."""
        self.token += 1
        body = encode_unhurried(self._client_id, self.token, frames, self._epoch)
        self._post(body, Unanswered(self.token, frames, None))
        self._unhurried = self.token

    def _ask(self) -> None:
        """Asks for the answers that may come later: the channel answers a request that has expired
        at once, after those before it."""
        if not self._requests or self._unhurried != self.token or self.unanswered >= CREDIT:
            return
        self.token += 1
        frames = self._requests[-1].frames[:1]
        body = encode_request(self._client_id, self.token, _LONG_AGO, frames, self._epoch)
        with suppress(CanTimeoutError):  # the socket's queue is full: they come by themselves
            self._post(body, Unanswered(self.token, frames, None, asks=True))

    def _post(self, body: bytes, request: Unanswered) -> Unanswered:
        """:raises CanTimeoutError: the socket's queue is full."""
        if not self._link.send(body):
            frame = describe(request.frames[0])
            raise CanTimeoutError(f"cannot send {frame}: the socket's queue is full")
        # At once: credit that is not given back is gone.
        self.unanswered += request.count
        self._asking += request.asks
        self._requests.append(request)
        return request

    def _await(self, request: Unanswered, deadline: int) -> None:
        """Waits until a request is answered, and raises its own failure."""
        request.awaited = True
        while not request.answered:
            try:
                self._wait(deadline + _GRACE_NS, "the driver did not take it in time")
            except CanTimeoutError as error:
                raise CanTimeoutError(f"{describe(request.frames[0])}: {error}") from None
        if request.expired:
            raise CanTimeoutError(summary(request.failures))
        if request.failures:
            raise request.failures[0].error(summary(request.failures))

    def _meet_successor(self, deadline: int | None) -> None:
        """Waits until the state of the actor that has answered for its predecessor is known, so
        that what is sent next is for that one."""
        until = self._stale_ns + _DOUBT_NS
        with suppress(CanTimeoutError):
            while self._stale_ns:
                self._wait(until if deadline is None else min(until, deadline), "")
        self._stale_ns = 0

    def _is_locked(self) -> bool:
        holder = self._watch.state.exclusive  # which was just looked at
        return holder is not None and holder.client_id != self._client_id

    def _wait(self, deadline: int | None, what: str, *, closing: bool = False) -> None:
        """Waits for answers and handles them.

        :raises CanTimeoutError: ``deadline`` is over.
        :raises CanOperationError: the bus is being closed by somebody else.
        """
        left = None if deadline is None else deadline - self._now()
        if left is not None and left <= 0:
            raise CanTimeoutError(what)
        # The thread that closes the bus has set the wake for the others; it would never sleep.
        wake = None if closing else self._wake()
        self._link.wait(wake, _LOOK_NS if left is None else min(left, _LOOK_NS))
        self.collect()
        if self.closing and not closing:
            raise CanOperationError("the bus was shut down")
        self._follow_epoch()
        # A channel that is down still answers. One that is gone never will.
        if self._requests and self._watch.silent():
            self._give_up(self._watch.problem() or "the broker or the channel actor is gone")
            self._link.renew()
        self._follow_connection()

    def _follow_connection(self) -> None:
        """Gives up requests that were under way when the connection was cut, if no more answers
        come: their outcome cannot be learnt. Those that did arrive are answered meanwhile."""
        if self._link.interruptions != self._interruptions:
            self._interruptions = self._link.interruptions
            self._doubtful, self._doubted_ns = self.token, self._now()
        if not self._doubtful:
            return
        if not self._requests or self._requests[0].token > self._doubtful:
            self._doubtful = 0
        elif self._now() - self._doubted_ns > _DOUBT_NS:
            self._give_up("the connection was lost", self._doubtful)
            self._doubtful = 0

    def _follow_epoch(self) -> None:
        """Gives up what was sent to an actor that was replaced since: it is never answered."""
        if self._watch.epoch != self._epoch:
            self._give_up("the channel actor was restarted")
            self._epoch = self._watch.epoch
            self._stale_ns = 0
