"""The subscribing side: a client's route, followed by number so that no loss goes unseen."""

from __future__ import annotations

from typing import Final

from canbroker import clock
from canbroker.clock import SECOND
from canbroker.errors import CanError, CanOperationError, CanTimeoutError
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

    ``received``, ``lost``, ``restarts`` (the route began anew: a new epoch, or a connection that
    was lost) and ``dropped_upstream`` are the account.
    """

    def __init__(self, context: Context, endpoint: str, channel: str, client_id: str) -> None:
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
        self._expected = 0
        self._heard_ns = clock.monotonic_ns()
        self._ready: stream.ReadyEvent | None = None
        self._kept: list[EchoFrame] = []  # arrived during a change of filters that failed
        self.socket: Socket = context.subscriber(endpoint)
        self._messages = Messages(self.socket)
        self._suspected_ns: int | None = None  # since when a silence is being made sure of
        self._waiter = Waiter()
        self._waiter.add(self.socket)

    def subscribe(
        self, filters: FilterSet, deadline: int | None
    ) -> tuple[stream.ReadyEvent, list[EchoFrame]]:
        """Changes to ``filters``; returns when they are active in the driver process.

        Also returns the frames that have arrived under the old filters until then.

        :raises CanTimeoutError: the channel actor did not answer by ``deadline``.
        :raises CanOperationError: it refused. The old filters stay in force, either way.
        """
        old_route, old_private, old_ready = self._route, self._private, self._ready
        route = topics.route_topic(self._channel, filters)
        private = topics.private_topic(self._channel, self._client_id, filters)
        frames, self._kept = self._kept, []
        if private == old_private and old_ready is not None:
            return old_ready, frames
        self._ready = None
        self._private = private
        # In this order: when the actor sees the private topic, it has seen the filters.
        self.socket.subscribe(route)
        self.socket.subscribe(private)
        try:
            ready = self._until_ready(frames, deadline)
        except CanError:
            self.socket.unsubscribe(private)
            self.socket.unsubscribe(route)
            self._private, self._ready = old_private, old_ready
            self._kept = frames
            raise
        self._route = route
        self.filters = filters
        if old_private:
            self.socket.unsubscribe(old_route)
            self.socket.unsubscribe(old_private)
        return ready, frames

    def receive(self) -> list[EchoFrame]:
        """What has arrived and not been returned, in order; at most one batch. Never blocks.

        :raises CanOperationError: the channel has ended, or says that we made an error.
        """
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        while (message := self._messages.next()) is not None:
            frames = self._message(*message)
            if frames:
                return frames
        return []

    def wait(self, wake: Descriptor, timeout_ns: int | None) -> None:
        """Waits until something may have arrived, ``wake`` is set, or ``timeout_ns`` is over.

        :raises CanOperationError: the channel has been silent for too long.
        """
        began = clock.monotonic_ns()
        patience = max(self._heard_ns + SILENCE_NS - began, CATCH_UP_NS)
        waiter = Waiter()
        waiter.add(self.socket)
        waiter.add(wake)
        ready = waiter.wait(patience if timeout_ns is None else min(timeout_ns, patience))
        now = clock.monotonic_ns()
        if ready or now - self._heard_ns < SILENCE_NS:
            self._suspected_ns = None
            return
        if self._suspected_ns is None:
            self._suspected_ns = now  # not before the wait, which may have been a long stop
        if now - self._suspected_ns >= CATCH_UP_NS:
            raise CanOperationError(
                f"channel {self._channel!r} is silent: its broker or channel actor is gone"
            )

    def readable(self) -> bool:
        """Whether :meth:`receive` would find a message."""
        return bool(self._kept) or readable(self.socket)

    def close(self) -> None:
        self.socket.close()

    def _until_ready(self, frames: list[EchoFrame], deadline: int | None) -> stream.ReadyEvent:
        """Takes messages until the ready event; appends their frames to ``frames``."""
        while self._ready is None:
            if (message := self._messages.next()) is not None:
                frames += self._message(*message)
                continue
            left = clock.remaining_ns(deadline)
            if left == 0:
                raise CanTimeoutError(
                    f"channel {self._channel!r} did not confirm the filters in time"
                )
            patience = _ASK_AGAIN_NS if left is None else min(left, _ASK_AGAIN_NS)
            if not self._waiter.wait(patience):
                # The answer was dropped if our backlog was at its limit. That is read by now.
                self.socket.unsubscribe(self._private)
                self.socket.subscribe(self._private)
        return self._ready

    def _message(self, topic: bytes, body: bytes) -> list[EchoFrame]:
        if topic not in {self._route, self._private}:
            return []  # a route that we have left, or that is not confirmed yet
        self._heard_ns = clock.monotonic_ns()
        try:
            if topic == self._route:
                return self._batch(stream.decode_batch(body))
            self._private_event(stream.decode_event(body))
        except WireError as error:
            raise CanOperationError(f"channel {self._channel!r}: {error}") from error
        return []

    def _batch(self, batch: stream.Batch) -> list[EchoFrame]:
        if isinstance(batch.payload, str):
            raise CanOperationError(f"channel {self._channel!r}: {batch.payload}")
        if batch.epoch != self.epoch:
            self._new_epoch(batch.epoch, batch.first_seq)
        elif batch.first_seq < self._expected:
            # The connection was lost for a while and the route with it: how much, nobody knows.
            self.restarts += 1
        self.dropped_upstream = batch.dropped_upstream
        if batch.first_seq > self._expected:
            self.lost += batch.first_seq - self._expected
        self._expected = batch.first_seq + len(batch.payload)
        self.received += len(batch.payload)
        return batch.payload

    def _private_event(self, body: stream.EventBody) -> None:
        event = body.payload
        if isinstance(event, str):
            raise CanOperationError(f"channel {self._channel!r}: {event}")
        if isinstance(event, stream.ReadyEvent):
            changing = self._ready is None
            self._ready = event
            if changing or body.epoch != self.epoch:
                self._new_epoch(body.epoch, event.next_seq)

    def _new_epoch(self, epoch: int, expected: int) -> None:
        if self.epoch and epoch != self.epoch:
            self.restarts += 1
        self.epoch = epoch
        self._expected = expected
