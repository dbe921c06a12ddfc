"""The subscribing side: a client's route, followed by number so that no loss goes unseen."""

from __future__ import annotations

from typing import Final

from canbroker import clock
from canbroker.clock import SECOND
from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.fabric.sockets import Context, Descriptor, Messages, Socket, Waiter, readable
from canbroker.filters import FilterSet
from canbroker.frame import EchoFrame
from canbroker.wire import WireError, stream, topics

#: A route is never silent for longer than a heartbeat; after this long its actor is gone, and
#: has not been restarted either.
SILENCE_NS: Final = 3 * SECOND // 2

#: A process that was stopped has its backlog in the kernel: this long its sockets get to see it.
CATCH_UP_NS: Final = SECOND // 10

#: An actor answers a change of filters at once; after this long it is asked again.
_ASK_AGAIN_NS: Final = SECOND // 2


class Subscriber:
    """One client's SUB socket on one channel. Used by one thread at a time.

    ``frames`` are those that have arrived; who takes them over puts an empty list there.
    ``received``, ``lost``, ``restarts`` (the route began anew: a new epoch, or a connection that
    was lost) and ``dropped_upstream`` are the account. A signal handler may raise anywhere in
    here: a frame is then either in ``frames`` and the account, or will be counted as lost.
    """

    def __init__(self, context: Context, endpoint: str, channel: str, client_id: str) -> None:
        self.frames: list[EchoFrame] = []
        self.received = 0
        self.lost = 0
        self.restarts = 0
        self.dropped_upstream = 0
        self.epoch = 0
        self.filters: FilterSet | None = None
        self._channel = channel
        self._client_id = client_id
        self._route = b""
        self._private = b""
        self._ready: stream.ReadyEvent | None = None  # under the filters in force
        self._asked = b""  # private topic of the filters that shall be next
        self._answer: stream.EventBody | None = None
        self._topics: set[bytes] = set()  # subscribed to, perhaps
        self._expected = 0
        self._heard_ns = clock.monotonic_ns()
        self.socket: Socket = context.subscriber(endpoint)
        self._messages = Messages(self.socket)
        self._suspected_ns: int | None = None  # since when a silence is being made sure of
        self._waiter = Waiter()
        self._waiter.add(self.socket)

    def subscribe(self, filters: FilterSet, deadline: int | None) -> stream.ReadyEvent:
        """Changes to ``filters``; returns when they are active in the driver process.

        What has arrived under the old filters until then is in ``frames``.

        :raises CanTimeoutError: the channel actor did not answer by ``deadline``.
        :raises CanOperationError: it refused. The old filters stay in force, either way.
        """
        route = topics.route_topic(self._channel, filters)
        private = topics.private_topic(self._channel, self._client_id, filters)
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
            restarted = bool(self.epoch) and answer.epoch != self.epoch
            # No call from here on: an exception strikes before all of it, or after.
            self._route = route
            self._private = private
            self._ready = ready
            self.filters = filters
            self.restarts += restarted
            self.epoch = answer.epoch
            self._expected = ready.next_seq
        finally:
            self._asked = b""
            self._leave_others()
        return ready

    def receive(self) -> list[EchoFrame]:
        """``frames``, with the next batch in it if there were none. Never blocks.

        :raises CanOperationError: the channel has ended, or says that we made an error.
        """
        while not self.frames and (message := self._messages.next()) is not None:
            self._message(*message)
        return self.frames

    def wait(self, wake: Descriptor, timeout_ns: int | None) -> None:
        """Waits until something may have arrived, ``wake`` is set, or ``timeout_ns`` is over.

        :raises CanOperationError: the channel has been silent for too long.
        """
        began = clock.monotonic_ns()
        patience = max(self._heard_ns + SILENCE_NS - began, CATCH_UP_NS)
        waiter = Waiter()
        waiter.add(self.socket)
        waiter.add(wake)
        if not waiter.wait(patience if timeout_ns is None else min(timeout_ns, patience)):
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
        return bool(self.frames) or readable(self.socket)

    def close(self) -> None:
        self.socket.close()

    def _join(self, topic: bytes) -> None:
        self._topics.add(topic)
        self.socket.subscribe(topic)

    def _leave_others(self) -> None:
        """Unsubscribes from all but what is in force."""
        for topic in self._topics - {self._route, self._private}:
            self.socket.unsubscribe(topic)
            self._topics.discard(topic)

    def _until_ready(self, deadline: int | None) -> tuple[stream.EventBody, stream.ReadyEvent]:
        """Takes messages until the answer to what was asked; their frames go to ``frames``."""
        while True:
            if self._answer is not None and isinstance(self._answer.payload, stream.ReadyEvent):
                return self._answer, self._answer.payload
            if (message := self._messages.next()) is not None:
                self._message(*message)
                continue
            left = clock.remaining_ns(deadline)
            if left == 0:
                raise CanTimeoutError(
                    f"channel {self._channel!r} did not confirm the filters in time"
                )
            patience = _ASK_AGAIN_NS if left is None else min(left, _ASK_AGAIN_NS)
            if not self._waiter.wait(patience):
                # The answer was dropped if our backlog was at its limit. That is read by now.
                self.socket.unsubscribe(self._asked)
                self.socket.subscribe(self._asked)

    def _message(self, topic: bytes, body: bytes) -> None:
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
        count, first = len(frames), batch.first_seq
        anew = batch.epoch != self.epoch
        gap = 0 if anew else max(0, first - self._expected)
        # Backwards in the same epoch: the connection was lost for a while and the route with it.
        # How much, nobody knows.
        restarted = bool(self.epoch) if anew else first < self._expected
        # No call from here on: an exception strikes before all of it, or after.
        self.frames += frames
        self.received += count
        self.lost += gap
        self.restarts += restarted
        self.dropped_upstream = batch.dropped_upstream
        self.epoch = batch.epoch
        self._expected = first + count

    def _private_event(self, topic: bytes, body: stream.EventBody) -> None:
        event = body.payload
        if isinstance(event, str):
            raise CanOperationError(f"channel {self._channel!r}: {event}")
        if not isinstance(event, stream.ReadyEvent):
            return
        if topic == self._asked:
            self._answer = body
        elif body.epoch != self.epoch:  # another actor, which has our subscription from libzmq
            self.restarts += 1
            self.epoch = body.epoch
            self._expected = event.next_seq
