"""Everything that happens on some channels as one ordered stream.

For recorders, bridges and displays: frames, and in their place among the frames what kept others
from arriving. Filters are those that each subscriber has on its channel.

Memory is bounded: frames that are not read stay with ZeroMQ up to its limit, then with the channel
in its ring. A reader that is too slow for both is told how many frames it has missed, and where.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from canbroker.delivery.merging import Disorder, Merger
from canbroker.delivery.order import Loss, Order, Place
from canbroker.errors import CanOperationError
from canbroker.model.frame import EchoFrame
from canbroker.system import clock
from canbroker.system.closing import Closing
from canbroker.system.throttle import Throttle
from canbroker.system.wake import Wake
from canbroker.transport.sockets import Socket
from canbroker.transport.waiter import Waiter
from canbroker.wire import WireError
from canbroker.wire.stream import AdapterClock, StateEvent, decode_event

#: About as many frames of each channel are read before the next channel's turn.
_AT_ONCE: Final = 1024

#: Nothing wakes a reader when a channel falls silent, or when a request has to be repeated.
_LOOK_NS: Final = clock.SECOND // 4
_LOOK_IN_GAP_NS: Final = clock.SECOND // 10

_logger = logging.getLogger(__name__)


class Frames(NamedTuple):
    """At least one frame of a channel, in the channel's order."""

    channel: str
    frames: list[EchoFrame]


class Missed(NamedTuple):
    """Frames of a channel did not reach us, and never will."""

    channel: str
    loss: Loss


class Dropped(NamedTuple):
    """Frames were lost before the broker saw them, at about this place."""

    channel: str
    number: int


class Restarted(NamedTuple):
    """The channel's process was replaced, or our connection was lost: frames on the bus
    meanwhile were not received. The next frame is that of ``place``."""

    channel: str
    place: Place


class Interrupted(NamedTuple):
    """The adapter is away; ``reason`` may be empty if it has come back already."""

    channel: str
    reason: str


class Silent(NamedTuple):
    """Nothing is heard of the channel any more. It may come back, with another broker, too."""

    channel: str
    reason: str


class Resumed(NamedTuple):
    """The channel that was interrupted or silent can receive again."""

    channel: str


class Ended(NamedTuple):
    """The last event of a channel: it was closed, or does not follow the protocol."""

    channel: str
    reason: str


Event: TypeAlias = "Frames | Missed | Dropped | Restarted | Interrupted | Silent | Resumed | Ended"


class Source(Protocol):
    """Where a feed reads: a :class:`~canbroker.delivery.subscriber.Subscriber`.

    ``states``: bodies of state events that have arrived, each with whether frames before it are
    still missing.
    """

    order: Order
    dropped_upstream: int
    states: deque[tuple[bytes, bool]]

    @property
    def sockets(self) -> Sequence[Socket]: ...

    def follow_state(self) -> None: ...

    def receive(self) -> bool: ...

    def check_alive(self) -> None: ...


class Feed:
    """One channel of a :class:`Tap`. One thread; nothing here waits.

    ``state``: the channel's last one, ``None`` before the first.
    """

    def __init__(self, channel: str, source: Source) -> None:
        """
        :param channel: the name that events give to the channel.
        :param source: has subscribed already; nobody else reads from it.
        """
        self.channel = channel
        self.ended = False
        self.state: StateEvent | None = None
        self._source = source
        self._dropped = source.dropped_upstream
        self._epoch = 0  # of the last state
        self._interruptions = 0  # up to the last state
        self._is_away = False
        self._is_silent = False
        self._ending = ""  # why the channel is about to end
        self._refused = Throttle(_logger)
        source.follow_state()

    @property
    def clock(self) -> AdapterClock | None:
        """The adapter's own, if it stamps the frames, as the last state says."""
        return None if self.state is None else self.state.clock

    @property
    def dropped(self) -> int:
        """Frames that were lost before the broker saw them, in this life of the channel."""
        return self._dropped

    @property
    def sockets(self) -> Sequence[Socket]:
        """The sockets that become readable when there is something to :meth:`read`."""
        return () if self.ended else self._source.sockets

    @property
    def is_repairing(self) -> bool:
        """Whether it waits for frames that are missing, which come by answers of the channel."""
        return self._source.order.gap is not None

    @property
    def look_ns(self) -> int:
        """When to :meth:`read` at the latest, even if no socket is readable: in nanoseconds."""
        return _LOOK_IN_GAP_NS if self.is_repairing else _LOOK_NS

    def read(self) -> list[Event]:
        """The events that have arrived, in order; empty if there are none, or after the end."""
        events: list[Event] = []
        if self.ended:
            return events
        source = self._source
        count = 0
        try:
            while count < _AT_ONCE and source.receive():
                count += len(source.order.frames)
                self._hand_over(events)
            self._hand_over(events)
            self._look_for_silence(events)
        except CanOperationError as error:
            self._hand_over(events)
            self._end(str(error), events)
        return events

    def _hand_over(self, events: list[Event]) -> None:
        """Appends what the source has received, with states and losses in their places."""
        source = self._source
        while source.states and not source.states[0][1]:
            self._state(source.states.popleft()[0], events)
        self._note_dropped(events)
        begin = 0
        for at, mark in _marks(source.order):
            self._append(source.order.frames[begin:at], events)
            name = self.channel
            events.append(Restarted(name, mark) if isinstance(mark, Place) else Missed(name, mark))
            begin = at
        frames, _, _ = source.order.take()
        self._append(frames[begin:], events)
        while source.states and source.order.gap is None:
            self._state(source.states.popleft()[0], events)

    def _append(self, frames: list[EchoFrame], events: list[Event]) -> None:
        if frames:
            events.append(Frames(self.channel, frames))

    def _note_dropped(self, events: list[Event]) -> None:
        """Appends an event if the count of dropped frames grew; it starts at 0 in each epoch."""
        count = self._source.dropped_upstream
        new = count - self._dropped if count >= self._dropped else count
        self._dropped = count
        if new:
            events.append(Dropped(self.channel, new))

    def _state(self, body: bytes, events: list[Event]) -> None:
        try:
            event = decode_event(body)
        except WireError as error:  # as if it had not been sent: the next one may be better
            self._refused.note(f"state of channel {self.channel!r} refused", str(error))
            return
        state = event.payload
        if not isinstance(state, StateEvent):
            return
        self.state = state
        is_first = not self._epoch
        if event.epoch != self._epoch:  # another actor, which counts from 0
            self._epoch, self._interruptions = event.epoch, state.interruptions if is_first else 0
        is_down = state.state == "error"
        if state.interruptions > self._interruptions or (is_first and is_down):
            self._is_away = True
            events.append(Interrupted(self.channel, state.reason if is_down else ""))
        self._interruptions = state.interruptions
        if self._is_away and not is_down:
            self._is_away = False
            events.append(Resumed(self.channel))
        if state.ended:  # frames before it may follow still, and then the end of the route
            self._ending = f"channel {self.channel!r}: {state.reason}"

    def _look_for_silence(self, events: list[Event]) -> None:
        try:
            self._source.check_alive()
        except CanOperationError as error:
            if self._ending:
                self._end(str(error), events)
            elif not self._is_silent:
                self._is_silent = True
                events.append(Silent(self.channel, str(error)))
            return
        if self._is_silent:
            self._is_silent = False
            events.insert(0, Resumed(self.channel))

    def _end(self, reason: str, events: list[Event]) -> None:
        self.ended = True
        events.append(Ended(self.channel, self._ending or reason))


class Tap(Closing):
    """The events of several channels as one stream. One thread; :meth:`stop` from any.

    The events of each channel are in their order. Those of several channels are in one order of
    time, by the timestamps of frames: a frame is held back until the other channels have told later
    ones, or for 20 ms. :attr:`disorder` is the account of frames that came too late for that.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        """:raises CanOperationError: no file descriptor is left."""
        self._feeds = feeds
        self._merger: Merger[Event] = Merger(len(feeds), _frames_of, _with_frames)
        self._wake = Wake()
        self._stopping = False
        self._sockets: list[Socket] = []
        self._waiter = Waiter()

    def receive(self, timeout: float | None = None) -> list[Event]:
        """Waits for events and returns those that have arrived.

        :param timeout: seconds; ``None`` waits for ever. The list is empty when they are over, and
            when all channels have ended. After :meth:`stop` it contains, once, the events that were
            held back.
        """
        deadline = clock.deadline_after(timeout)
        while not self.over:
            now_ns = clock.monotonic_ns()
            self._read(now_ns)
            if events := self._merger.take(now_ns):
                return events
            left_ns = clock.remaining_ns(deadline)
            if left_ns == 0:
                return []
            due_ns = self._merger.due_ns()
            if due_ns is not None:
                held_ns = max(0, due_ns - now_ns)
                left_ns = held_ns if left_ns is None else min(left_ns, held_ns)
            self._wait(left_ns)
        return self._merger.rest()

    def __iter__(self) -> Iterator[Event]:
        """Yields events until all channels have ended, or :meth:`stop` is called."""
        while not self.over:
            yield from self.receive()

    @property
    def disorder(self) -> Disorder:
        """Frames that are handed over after later ones of other channels."""
        return self._merger.disorder

    @property
    def over(self) -> bool:
        """Whether no more events will come."""
        return self._stopping or all(feed.ended for feed in self._feeds)

    def stop(self) -> None:
        """Ends the stream, whatever waits for it. Any thread, also a signal handler."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Ends the stream. The sources stay open; their owner closes them."""
        self._stopping = True
        self._wake.close()

    def _read(self, now_ns: int) -> None:
        for index, feed in enumerate(self._feeds):
            if events := feed.read():
                self._merger.add(index, events, now_ns)
            if feed.ended:
                self._merger.end(index)

    def _wait(self, left_ns: int | None) -> None:
        open_feeds = [feed for feed in self._feeds if not feed.ended]
        sockets = [socket for feed in open_feeds for socket in feed.sockets]
        if sockets != self._sockets:  # one more, while a feed asks for missing frames
            self._sockets = sockets
            self._waiter = Waiter()
            self._waiter.add(self._wake)
            for socket in sockets:
                self._waiter.add(socket)
        look_ns = min(feed.look_ns for feed in open_feeds)
        self._waiter.wait(look_ns if left_ns is None else min(look_ns, left_ns))


def _marks(order: Order) -> list[tuple[int, Loss | Place]]:
    """Losses and the places of restarts in their order, each with the number of frames before."""
    marks: list[tuple[int, Loss | Place]] = [*order.losses]
    for restart in reversed(order.restarted):
        marks.insert(restart.losses, (restart.frames, restart.place))
    return marks


def _frames_of(event: Event) -> list[EchoFrame]:
    return event.frames if isinstance(event, Frames) else []


def _with_frames(event: Event, frames: list[EchoFrame]) -> Event:
    return Frames(event.channel, frames)
