"""The subscribing side: a client's route, followed by number so that no loss goes unseen."""

from __future__ import annotations

from collections import deque
from typing import Final

from canbroker.delivery.asker import Asker
from canbroker.delivery.order import Order, Part
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
from canbroker.model.filters import FilterSet
from canbroker.system import clock
from canbroker.system.clock import SECOND
from canbroker.transport.address import Address
from canbroker.transport.sockets import STREAM_HIGH_WATER, Context, Messages, Socket, readable
from canbroker.transport.waiter import Descriptor, Waiter
from canbroker.wire import WireError, stream, topics

#: A route is never silent for longer than a heartbeat; after this long its actor is gone, and
#: has not been restarted either.
SILENCE_NS: Final = 3 * SECOND // 2

#: A process that was stopped has its backlog in the kernel: this long its sockets get to see it.
CATCH_UP_NS: Final = SECOND // 10

#: An actor answers a change of filters at once; after this long it is asked again.
_ASK_AGAIN_NS: Final = SECOND // 2

#: What is missing when the filters are changed has this long to come.
_SETTLE_NS: Final = SECOND


class Subscriber:
    """One client's SUB socket on one channel. Used by one thread at a time.

    ``order`` has the frames that have arrived, the account, and what is missing.
    ``dropped_upstream`` is what the channel says of itself. A signal handler may raise anywhere
    in here: a frame is then either in ``order.frames`` and the account, or will be missed.
    """

    def __init__(
        self,
        context: Context,
        endpoint: Address,
        channel: str,
        client_id: str,
        control: Address | None = None,
        claim: str | None = None,
        *,
        repairs: bool = True,
    ) -> None:
        """``control``: endpoint to ask for the past. Without it, or with ``repairs`` false, what
        was missed is lost.

        ``claim``: we want the sole right to transmit; it says for people who we are.
        """
        self.order = Order(repairs=repairs and control is not None)
        self.dropped_upstream = 0
        self.filters: FilterSet | None = None
        self._channel = channel
        self._client_id = client_id
        self._claim = claim
        self._route = b""
        self._private = b""
        self._ready: stream.ReadyEvent | None = None  # under the filters in force
        self._asked = b""  # private topic of the filters that shall be next
        self._answer: stream.EventBody | None = None
        self._topics: set[bytes] = set()  # subscribed to, perhaps
        self.states: deque[tuple[bytes, bool]] = deque()
        self._state_topic: bytes | None = None  # None: state events are not followed
        self._backlog = 0  # messages before the last answer
        self._heard_ns = clock.monotonic_ns()
        self.socket: Socket = context.subscriber(endpoint)
        self._messages = Messages(self.socket)
        self._suspected_ns: int | None = None  # since when a silence is being made sure of
        self._waits: tuple[Descriptor, Asker | None, Waiter] | None = None  # for these two
        self._context = context
        self._control = control
        self._asker: Asker | None = None  # while there is something to ask

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
            self._settle()
            self.order.begin(answer.epoch, ready.next_seq)
            # No call from here on: an exception strikes before all of it, or after.
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
        self.socket.subscribe(self._state_topic)

    def remember(self, seconds: float, deadline: int | None) -> None:
        """Puts the frames of the last ``seconds`` before those of the route, just subscribed to.

        :raises CanTimeoutError: the channel did not answer by ``deadline``.
        :raises CanOperationError: it refused.
        """
        asker = self._open_asker()
        try:
            past = asker.history(self._route, seconds, None, deadline)
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        finally:
            self._close_asker()
        if past is None:
            raise CanTimeoutError(f"channel {self._channel!r} did not tell its history in time")
        self.order.remember(*past)

    def receive(self) -> bool:
        """Whether ``order.frames`` has some, with the next batch if there were none.

        Never blocks.

        :raises CanOperationError: the channel has ended, or says that we made an error.
        """
        order = self.order
        while not order.frames:
            if order.gap is not None and self._mend():
                continue
            message = self._messages.next()
            if message is None:
                return bool(order.losses)
            self._message(*message)
        return True

    def wait(self, wake: Descriptor, timeout_ns: int | None) -> None:
        """Waits until something may have arrived, ``wake`` is set, or ``timeout_ns`` is over.

        :raises CanOperationError: the channel has been silent for too long.
        """
        now = clock.monotonic_ns()
        patience = max(self._heard_ns + SILENCE_NS - now, CATCH_UP_NS)
        asker = self._asker if self.order.gap is not None else None
        if asker is not None:
            patience = min(patience, max(0, asker.due_ns() - now))
        if self._waits is None or self._waits[:2] != (wake, asker):
            waiter = Waiter()
            for source in (self.socket, wake, *([asker.socket] if asker else [])):
                waiter.add(source)
            self._waits = wake, asker, waiter
        ready = self._waits[2].wait(patience if timeout_ns is None else min(timeout_ns, patience))
        self._messages.expected = self.socket in ready
        if not ready:
            self.check_alive()

    def check_alive(self) -> None:
        """For who has just found nothing to receive.

        :raises CanOperationError: the channel has been silent for too long.
        """
        now = clock.monotonic_ns()
        if now - self._heard_ns < SILENCE_NS:
            return
        if self._suspected_ns is None:
            self._suspected_ns = now  # not before the wait, which may have been a long stop
        if now - self._suspected_ns >= CATCH_UP_NS:
            raise CanOperationError(
                f"channel {self._channel!r} is silent: its broker or channel actor is gone"
            )

    def readable(self) -> bool:
        """Whether :meth:`receive` would find a message."""
        if self.order.frames or self.order.losses or readable(self.socket):
            return True
        return self._asker is not None and readable(self._asker.socket)

    @property
    def sockets(self) -> list[Socket]:
        """Those that make it :meth:`readable`."""
        return [self.socket] if self._asker is None else [self.socket, self._asker.socket]

    def leave(self) -> None:
        """Says that we are not there any more; what has arrived can still be received."""
        topics, self._topics = self._topics, set()
        for topic in topics:
            self.socket.unsubscribe(topic)

    def close(self) -> None:
        self.socket.close()
        self._close_asker()

    def _open_asker(self) -> Asker:
        """:raises CanOperationError: there is nobody to ask, or no descriptor for it."""
        if self._control is None:
            raise CanOperationError(f"channel {self._channel!r}: nobody to ask for the past")
        if self._asker is None:
            try:
                self._asker = Asker(self._context, self._control, self._client_id)
            except CanError as error:
                raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        return self._asker

    def _close_asker(self) -> None:
        """A bus that misses nothing needs no descriptors for asking."""
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.close()

    def _mend(self) -> bool:
        """Sees to what is missing; whether there is news of it.

        :raises CanOperationError: the answer is not of this protocol.
        """
        if self._control is None:
            return False
        try:
            asker = self._open_asker()
        except CanOperationError as error:
            self.order.gone(str(error))
            return True
        try:
            news = asker.mend(self.order, self._route)
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        if self.order.gap is None:
            self._close_asker()
        return news

    def _look_behind(self, deadline: int | None) -> None:
        """Takes messages until one tells where the route stands that we are about to leave.

        Our backlog was at its limit, or the actor is another one: the last frames before the change
        may have been dropped, and nothing has told of that yet. What comes of the new route
        meanwhile is repaired.
        """
        until = clock.monotonic_ns() + _SETTLE_NS
        until = until if deadline is None else min(until, deadline)
        waiter = Waiter()
        waiter.add(self.socket)
        while self._route and (left := clock.remaining_ns(until)):
            message = self._messages.next()
            if message is None:
                waiter.wait(left)
            elif message[0] == self._route:
                try:
                    batch = stream.decode_batch(message[1])
                except WireError as error:
                    raise CanOperationError(f"channel {self._channel!r}: {error}") from error
                # Its frames come with the new route, too, as far as they are wanted.
                self.order.add(Part(batch.epoch, batch.first_seq, ()))
                return

    def _settle(self) -> None:
        """Waits for what is missing of a route that we are about to leave."""
        deadline = clock.monotonic_ns() + _SETTLE_NS
        while self.order.gap is not None and self._control is not None:
            if self._mend() or self._asker is None:
                continue
            left = clock.remaining_ns(deadline)
            if left == 0:
                self.order.gone("the filters were changed before they came")
                continue
            waiter = Waiter()
            waiter.add(self._asker.socket)
            waiter.wait(left)

    def _join(self, topic: bytes) -> None:
        self._topics.add(topic)
        self.socket.subscribe(topic)

    def _leave_others(self) -> None:
        """Unsubscribes from all but what is in force."""
        for topic in self._topics - {self._route, self._private}:
            self.socket.unsubscribe(topic)
            self._topics.discard(topic)

    def _until_ready(self, deadline: int | None) -> tuple[stream.EventBody, stream.ReadyEvent]:
        """Takes messages until the answer to what was asked; their frames go to ``order``."""
        waiter = Waiter()
        waiter.add(self.socket)
        again = clock.monotonic_ns() + _ASK_AGAIN_NS
        self._backlog = 0
        while True:
            if self._answer is not None and isinstance(self._answer.payload, stream.ReadyEvent):
                return self._answer, self._answer.payload
            if (message := self._messages.next()) is not None:
                self._backlog += 1
                self._message(*message)
                continue
            now = clock.monotonic_ns()
            if deadline is not None and now >= deadline:
                raise CanTimeoutError(
                    f"channel {self._channel!r} did not confirm the filters in time"
                )
            if now >= again:
                # The answer was dropped if our backlog was at its limit. That is read by now.
                self.socket.unsubscribe(self._asked)
                self.socket.subscribe(self._asked)
                again = now + _ASK_AGAIN_NS
            waiter.wait((again if deadline is None else min(deadline, again)) - now)

    def _message(self, topic: bytes, body: bytes) -> None:
        if topic == self._state_topic:
            self.states.append((body, self.order.gap is not None))
            return
        if topic not in {self._route, self._private, self._asked}:
            return  # a route that we have left, or that is not confirmed yet
        self._heard_ns = clock.monotonic_ns()
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
            raise CanOperationError(f"channel {self._channel!r}: {frames}")
        self.dropped_upstream = batch.dropped_upstream
        self.order.add(Part(batch.epoch, batch.first_seq, frames))

    def _private_event(self, topic: bytes, body: stream.EventBody) -> None:
        event = body.payload
        if isinstance(event, str):
            raise CanOperationError(f"channel {self._channel!r}: {event}")
        if not isinstance(event, stream.ReadyEvent):
            return
        if topic == self._asked:
            self._answer = body
        elif body.epoch != self.order.epoch:
            # Another actor, which has our subscription from libzmq.
            self.order.add(Part(body.epoch, event.next_seq, ()))
