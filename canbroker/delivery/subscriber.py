"""The subscribing side: a client's route, whose frames are numbered so that losses are noticed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from canbroker.delivery.order import Order, Part, Place
from canbroker.delivery.sources import Archive, Stream
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
from canbroker.model.filters import FilterSet
from canbroker.system import clock
from canbroker.system.clock import SECOND
from canbroker.transport.sockets import STREAM_HIGH_WATER
from canbroker.wire import WireError, stream, topics

#: A route is never silent for longer than a heartbeat. After this time its actor is gone, and was
#: not restarted.
SILENCE_NS: Final = 3 * SECOND // 2

#: The backlog of a process that was stopped is in the kernel; its sockets get this time to read it.
CATCH_UP_NS: Final = SECOND // 10

#: An actor answers a change of filters at once; it is asked again after this time.
_ASK_AGAIN_NS: Final = SECOND // 2

#: A route has a heartbeat every half second, so who has heard nothing for so long was away.
_AWAY_NS: Final = SECOND

#: Frames that are missing when the filters are changed have this long to arrive.
_CHANGE_NS: Final = SECOND


class Identity(msgspec.Struct, frozen=True):
    """A client of a channel. ``claim``: it wants the sole right to transmit; the text says for
    people who it is."""

    channel: str
    client_id: str
    claim: str | None = None


class Subscriber:
    """Receives one client's route of one channel. Used by one thread at a time.

    ``order`` has the frames that have arrived, the account, and what is missing.
    ``dropped_upstream`` is the channel's own count. ``behind``: the client was away, and has not
    yet read all that has come meanwhile. A signal handler may raise anywhere in here:
    a frame is then either in ``order.frames`` and the account, or will be found missing.
    """

    def __init__(
        self,
        link: Stream,
        identity: Identity,
        open_archive: Callable[[], Archive] | None = None,
        *,
        repairs: bool = True,
        far_ns: int = 0,
        now: Callable[[], int] = clock.monotonic_ns,
    ) -> None:
        """``open_archive``: connects to the channel to ask for the past. Without it, or with
        ``repairs`` false, missing frames are lost. ``far_ns``: for how much longer the channel may
        be silent because it is far away. ``now``: the time, in ns."""
        self._silence_ns = SILENCE_NS + far_ns
        self.order = Order(repairs=repairs and open_archive is not None)
        self.dropped_upstream = 0
        self.behind = False
        self.filters: FilterSet | None = None
        self._link = link
        self._channel = identity.channel
        self._client_id = identity.client_id
        self._claim = identity.claim
        self._now = now
        self._route = b""
        self._private = b""
        self._ready: stream.ReadyEvent | None = None  # under the filters in force
        self._asked = b""  # private topic of the filters that shall be next
        self._answer: stream.EventBody | None = None
        self._topics: set[bytes] = set()  # subscribed to, perhaps
        self.states: deque[tuple[bytes, bool]] = deque()
        self._state_topic: bytes | None = None  # None: state events are not followed
        self._backlog = 0  # messages before the last answer
        self._heard_ns = now()
        self._suspected_ns: int | None = None  # when checking of a silence began
        self._open_archive = open_archive
        self._archive: Archive | None = None  # while there is something to ask

    def subscribe(self, filters: FilterSet, deadline: int | None) -> stream.ReadyEvent:
        """Changes to ``filters``; returns when they are active in the driver process.

        What has arrived under the old filters until then is in ``order.frames``.

        :raises CanTimeoutError: the channel actor did not answer by ``deadline``.
        :raises CanOperationError: it refused. The old filters stay in force, either way.
        """
        route = topics.route_topic(self._channel, filters)
        private = topics.private_topic(self._channel, self._client_id, filters, self._claim)
        if private == self._private and self._ready is not None:
            return self._ready
        self._leave_others()  # of a change that was interrupted
        self._answer = None
        self._asked = private
        try:
            # In this order: when the actor sees the private topic, it has seen the filters.
            self._join(route)
            self._join(private)
            answer, ready = self._until_ready(deadline)
            is_replaced = answer.epoch != self.order.epoch
            if is_replaced or self._backlog >= STREAM_HIGH_WATER:
                self._look_behind(deadline)
            self._mend_before_change()
            self.order.begin(answer.epoch, ready.next_seq)
            # At once.
            self._route = route
            self._private = private
            self._ready = ready
            self.dropped_upstream = ready.state.dropped
            self.filters = filters
        finally:
            self._asked = b""
            self._leave_others()
        return ready

    def follow_state(self) -> None:
        """Receives state events of the channel, too, in their place among the frames.

        Each goes to ``states`` with whether frames before it were missing when it arrived.
        """
        self._state_topic = topics.state_topic(self._channel)
        self._link.subscribe(self._state_topic)

    def remember(self, seconds: float, deadline: int | None) -> None:
        """Puts the frames of the last ``seconds`` before those of the route, just subscribed to.

        :raises CanTimeoutError: the channel did not answer by ``deadline``.
        :raises CanOperationError: it refused.
        """
        archive = self._opened_archive()
        try:
            past = archive.history(self._route, seconds, None, deadline)
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        finally:
            self._rest_archive()
        if past is None:
            raise CanTimeoutError(f"channel {self._channel!r} did not tell its history in time")
        self.order.remember(*past)

    def go_back(self, place: Place) -> None:
        """Continues at a place where a reader was before. What has come since will be repaired, as
        far as the channel has it. The place must be of the route that is subscribed to."""
        self.order.go_back(place)

    def receive(self) -> bool:
        """Whether ``order.frames`` has some, with the next batch if there were none.

        Never blocks.

        :raises CanOperationError: the channel has ended, or says that we made an error.
        """
        order = self.order
        while not order.frames:
            if order.gap is not None and self._mend():
                continue
            message = self._link.receive()
            if message is None:
                return bool(order.losses)
            self._message(*message)
        return True

    def wait(self, wake: Any, timeout_ns: int | None) -> None:
        """Waits until something may have arrived, ``wake`` is set, or ``timeout_ns`` is over.

        :raises CanOperationError: the channel has been silent for too long.
        """
        now = self._now()
        self.behind = self.behind and self.order.gap is not None
        patience = max(self._heard_ns + self._silence_ns - now, CATCH_UP_NS)
        others = [wake]
        if self._archive is not None and self.order.gap is not None:
            patience = min(patience, max(0, self._archive.due_ns() - now))
            others.append(self._archive.socket)
        if timeout_ns is not None:
            patience = min(patience, timeout_ns)
        if not self._link.wait(patience, *others):
            self.check_alive()

    def check_alive(self) -> None:
        """Call it when there was nothing to receive.

        :raises CanOperationError: the channel has been silent for too long.
        """
        problem = self._link.problem()
        if problem is not None:
            raise CanOperationError(problem)
        now = self._now()
        if now - self._heard_ns < self._silence_ns:
            return
        if self._suspected_ns is None:
            self._suspected_ns = now  # not before the wait, which may have been a long stop
        if now - self._suspected_ns >= CATCH_UP_NS:
            raise CanOperationError(
                f"channel {self._channel!r} is silent: its broker or channel actor is gone"
            )

    def readable(self) -> bool:
        """Whether :meth:`receive` would find a message."""
        if self.order.frames or self.order.losses or self._link.readable():
            return True
        return self._archive is not None and self._archive.readable()

    @property
    def sockets(self) -> list[Any]:
        """Those that make it :meth:`readable`."""
        archive = self._archive
        return [self._link.socket] if archive is None else [self._link.socket, archive.socket]

    def leave(self) -> None:
        """Ends our presence on the channel; messages that have arrived can still be received."""
        topics, self._topics = self._topics, set()
        for topic in topics:
            self._link.unsubscribe(topic)

    def close(self) -> None:
        self._link.close()
        self._close_archive()

    def _opened_archive(self) -> Archive:
        """:raises CanOperationError: there is nobody to ask, or no descriptor for it."""
        if self._open_archive is None:
            raise CanOperationError(f"channel {self._channel!r}: nobody to ask for the past")
        if self._archive is None:
            try:
                self._archive = self._open_archive()
            except CanError as error:
                raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        return self._archive

    def _rest_archive(self) -> None:
        """Gives back its descriptors while nothing is missing."""
        if self._archive is not None and not self._archive.lasting:
            self._close_archive()

    def _close_archive(self) -> None:
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()

    def _mend(self) -> bool:
        """Asks for missing frames, and handles answers; whether there was news.

        :raises CanOperationError: the answer is not of this protocol.
        """
        if self._open_archive is None:
            return False
        try:
            archive = self._opened_archive()
        except CanOperationError as error:
            self.order.gone(str(error))
            return True
        try:
            news = archive.mend(self.order, self._route)
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        if self.order.gap is None:
            self._rest_archive()
        return news

    def _look_behind(self, deadline: int | None) -> None:
        """Reads messages until one tells the position of the route that we are about to leave.

        Our backlog was at its limit, or another actor has taken over: the last frames before the
        change may have been dropped, and no message has told us so yet. Frames of the new route
        that arrive meanwhile are repaired.
        """
        until = self._now() + _CHANGE_NS
        until = until if deadline is None else min(until, deadline)
        while self._route and (left := until - self._now()) > 0:
            message = self._link.receive()
            if message is None:
                self._link.wait(left)
            elif message[0] == self._route:
                try:
                    batch = stream.decode_batch(message[1])
                except WireError as error:
                    raise CanOperationError(f"channel {self._channel!r}: {error}") from error
                # Its frames come with the new route, too, as far as they are wanted.
                self.order.add(Part(batch.epoch, batch.first_seq, ()))
                return

    def _mend_before_change(self) -> None:
        """Waits for missing frames of the route that we are about to leave."""
        deadline = self._now() + _CHANGE_NS
        while self.order.gap is not None and self._open_archive is not None:
            if self._mend() or self._archive is None:
                continue
            left = deadline - self._now()
            if left <= 0:
                self.order.gone("the filters were changed before they came")
                continue
            self._archive.wait(left)

    def _join(self, topic: bytes) -> None:
        self._topics.add(topic)
        self._link.subscribe(topic)

    def _leave_others(self) -> None:
        """Unsubscribes from all but what is in force."""
        for topic in self._topics - {self._route, self._private}:
            self._link.unsubscribe(topic)
            self._topics.discard(topic)

    def _until_ready(self, deadline: int | None) -> tuple[stream.EventBody, stream.ReadyEvent]:
        """Reads messages until the answer to our request; their frames go to ``order``."""
        again = self._now() + _ASK_AGAIN_NS
        self._backlog = 0
        while True:
            if self._answer is not None and isinstance(self._answer.payload, stream.ReadyEvent):
                return self._answer, self._answer.payload
            if (message := self._link.receive()) is not None:
                self._backlog += 1
                self._message(*message)
                continue
            now = self._now()
            if deadline is not None and now >= deadline:
                raise CanTimeoutError(
                    f"channel {self._channel!r} did not confirm the filters in time"
                )
            if now >= again:
                # The answer was dropped if our backlog was at its limit. We have read that now.
                self._link.unsubscribe(self._asked)
                self._link.subscribe(self._asked)
                again = now + _ASK_AGAIN_NS
            self._link.wait((again if deadline is None else min(deadline, again)) - now)

    def _message(self, topic: bytes, body: bytes) -> None:
        if topic != self._route and topic not in {self._private, self._asked}:
            if topic == self._state_topic:
                self.states.append((body, self.order.gap is not None))
            return  # else a route that we have left, or that is not confirmed yet
        now = self._now()
        if now - self._heard_ns > _AWAY_NS:
            self.behind = True
        self._heard_ns = now
        self._suspected_ns = None
        try:
            if topic == self._route:
                self._batch(stream.decode_batch(body))
            else:
                self._private_event(topic, stream.decode_event(body))
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error

    def _batch(self, batch: stream.Batch) -> None:
        frames = batch.payload
        if isinstance(frames, str):
            if batch.kind == stream.END:
                self._note_end(Part(batch.epoch, batch.first_seq, ()))
            raise CanOperationError(f"channel {self._channel!r}: {frames}")
        self.dropped_upstream = batch.dropped_upstream
        self.order.add(Part(batch.epoch, batch.first_seq, frames))

    def _note_end(self, end: Part) -> None:
        """Counts what is missing before the end of the route, as nobody is left to ask."""
        self.order.add(end)
        while self.order.gap is not None:
            self.order.gone("the channel has ended")

    def _private_event(self, topic: bytes, body: stream.EventBody) -> None:
        event = body.payload
        if isinstance(event, str):
            if body.forbidden is not None:
                raise body.forbidden.error(event)
            raise CanOperationError(f"channel {self._channel!r}: {event}")
        if not isinstance(event, stream.ReadyEvent):
            return
        if topic == self._asked:
            self._answer = body
        elif body.epoch != self.order.epoch:
            # Another actor, which has our subscription from libzmq.
            self.order.add(Part(body.epoch, event.next_seq, ()))
