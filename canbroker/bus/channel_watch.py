"""What a client knows about its channel without asking: its last state, and that it lives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from canbroker.bus.channel_clock import ChannelClock
from canbroker.delivery.state_feed import StateFeed
from canbroker.delivery.subscriber import CATCH_UP_NS, SILENCE_NS
from canbroker.errors import CanOperationError
from canbroker.system import clock, locks
from canbroker.system.locks import Rank
from canbroker.system.throttle import Throttle
from canbroker.transport.address import Address
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import WireError, topics
from canbroker.wire.stream import Holder, LeftEvent, StateEvent, decode_event

#: A receiver looks at the state this often, not at every frame: a look costs as much as a frame.
_GLANCE_NS: Final = 10 * clock.MILLISECOND

_logger = logging.getLogger("canbroker.bus")


class ChannelWatch:
    """Follows a channel's state stream. Any thread; never waits for more than a moment.

    ``clock``: the channel's, for deadlines that are sent there.
    """

    def __init__(
        self, context: Context, endpoint: Address, channel: str, channel_clock: ChannelClock
    ) -> None:
        self.state = StateEvent(state="active")
        self.epoch = 0
        self.clock = channel_clock
        self._far_ns = channel_clock.far_ns
        self._interruptions_before = 0
        self._held_before = 0
        self._lock = locks.make(Rank.WATCH)
        self._heard_ns = clock.monotonic_ns()
        self._looked_ns = 0
        self._said_ns = 0  # when the last state was true, on our clock
        self._feed = StateFeed(context, endpoint, topics.state_topic(channel))
        self._waiter = Waiter()
        self._waiter.add(self._feed.socket)
        self._channel = channel
        self._closed = False
        self._refused = Throttle(_logger)
        self._ended = ""
        self._left: set[str] = set()  # clients that have left, as the channel says

    def begin(self, epoch: int, state: StateEvent) -> None:
        """Starts from what the channel has said in its ready event."""
        self.epoch, self.state = epoch, state
        self._interruptions_before = state.interruptions
        self._held_before = _held(state)
        self._heard_ns = clock.monotonic_ns()
        self.clock.note(state.monotonic_ns, self._heard_ns)

    @property
    def interruptions(self) -> int:
        """How often the adapter was away since we began to watch, as far as is known."""
        with self._lock:
            self._follow()
        return self.state.interruptions - self._interruptions_before

    @property
    def held_errors(self) -> int:
        """Error frames that the channel has only counted since we began to watch."""
        with self._lock:
            self._follow()
        return _held(self.state) - self._held_before

    def current(self) -> StateEvent | None:
        """The channel's state, which is half a second old at most; ``None`` if it is silent."""
        return None if self.silent() else self.state

    def problem(self) -> str | None:
        """Why frames cannot be sent now, as far as is known; ``None`` if they can."""
        silent = self.silent()
        if self._ended:
            return self._ended
        if silent:
            return self._feed.problem() or "its broker or channel actor is gone"
        return self.state.reason or "down" if self.state.state == "error" else None

    def ended(self) -> str:
        """Why the channel has ended for good; empty if it has not, as far as is known."""
        return self._ended

    def silent(self) -> bool:
        """Whether nothing has been heard of the channel for too long, or nothing will be."""
        with self._lock:
            self._follow()
            if self._feed.is_refused():
                return True
            if self._quiet() and not self._closed:
                self._waiter.wait(CATCH_UP_NS + self._far_ns)
                self._follow()
            return self._quiet()

    def glance(self) -> None:
        """Reads the channel's events, unless that was done a moment ago."""
        if clock.monotonic_ns() - self._looked_ns > _GLANCE_NS:
            with self._lock:
                self._follow()

    def wait_for(self, state: str, deadline: int | None) -> None:
        """Waits until the channel publishes ``state``, which it has already confirmed to us.

        :raises CanOperationError: it did not say so by ``deadline``.
        """
        with self._lock:
            self._follow()
            while self.state.state != state:
                if self._closed or not self._waiter.wait(clock.remaining_ns(deadline)):
                    raise CanOperationError(f"channel {self._channel!r} is not {state} yet")
                self._follow()

    def holder(self) -> Holder | None:
        """The client that alone may transmit, as far as is known; ``None``: all may."""
        with self._lock:
            self._follow()
        return self.state.exclusive

    def wait_until_left(self, client_id: str, deadline: int | None) -> bool:
        """Whether the channel says by ``deadline`` that a client is not present.

        The state says so as well, but lists all clients each time. It is no longer followed
        after this call.
        """
        with self._lock:
            if self._closed or (self._quiet() and not self._waiter.wait(0)):
                return False  # the channel is gone
            self._feed.turn_to(topics.left_topic(self._channel, client_id))
            while client_id not in self._left:
                left = clock.remaining_ns(deadline)
                if not left or not self._waiter.wait(left):
                    return False
                self._read()
            return True

    def wait_for_holder(self, is_it: Callable[[Holder | None], bool], deadline: int | None) -> bool:
        """Whether the channel says by ``deadline`` that it has a holder for which ``is_it``."""
        with self._lock:
            self._follow()
            while not is_it(self.state.exclusive):
                if self._closed or not self._waiter.wait(clock.remaining_ns(deadline)):
                    return False
                self._follow()
            return True

    def mine(self) -> bool:
        """Whether this thread is reading it."""
        return locks.is_held(self._lock)

    def wake_up(self) -> None:
        """Does nothing: no thread waits here for more than a moment."""

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._feed.close()

    def forked(self) -> None:
        """[forked child] The socket is the parent's, and so is the lock."""
        self._lock = locks.make(Rank.WATCH)
        self._closed = True

    def _quiet(self) -> bool:
        silence_ns = SILENCE_NS + self._far_ns
        return self._closed or clock.monotonic_ns() - self._heard_ns > silence_ns

    def _follow(self) -> None:
        """Reads the channel's events. After a long time without a look the first ones are old,
        so the channel is asked for its present state."""
        if not self._read() or not self._is_old():
            return
        self._feed.refresh()
        deadline = clock.monotonic_ns() + CATCH_UP_NS + self._far_ns
        # What comes next may be old, too: it was in the kernel, or at the channel.
        while (left := clock.remaining_ns(deadline)) and self._waiter.wait(left):
            if not self._read() or not self._is_old():
                return

    def _is_old(self) -> bool:
        """Whether the last state has been true for some time, and may not be any more."""
        return clock.monotonic_ns() - self._said_ns > SILENCE_NS

    def _read(self) -> bool:
        """Reads the events that have arrived; whether there were any."""
        self._looked_ns = clock.monotonic_ns()
        taken = False
        while not self._closed and (body := self._feed.receive()) is not None:
            taken = True
            try:
                event = decode_event(body)
            except WireError as error:  # ignored: the next one may be valid
                self._refused.note(f"state of channel {self._channel!r} refused", str(error))
                continue
            self._heard_ns = clock.monotonic_ns()
            if isinstance(event.payload, LeftEvent):
                self._left.add(event.payload.client_id)
            elif isinstance(event.payload, StateEvent):
                if event.payload.ended:  # also if another broker is there by now
                    self._ended = event.payload.reason
                if event.epoch != self.epoch:  # its actor was replaced, and counts from 0
                    self._interruptions_before -= self.state.interruptions
                    self._held_before -= _held(self.state)
                    self.clock.begin()
                self.clock.note(event.payload.monotonic_ns, self._heard_ns)
                self._said_ns = self.clock.ours(event.payload.monotonic_ns)
                self.epoch, self.state = event.epoch, event.payload
        return taken and not self._closed


def _held(state: StateEvent) -> int:
    return sum(state.held_errors.values())
