"""The receiving half of a bus: frames become messages, and wait until someone takes them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from canbroker import clock
from canbroker.fabric.readiness import Readiness
from canbroker.fabric.sockets import Context
from canbroker.fabric.subscriber import Subscriber
from canbroker.filters import EVERYTHING, FilterSet
from canbroker.frame import ERROR, EXTENDED, EchoFrame
from canbroker.link.turns import Turns
from canbroker.link.watch import ChannelWatch
from canbroker.message import Message
from canbroker.throttle import Throttle
from canbroker.wake import Wake
from canbroker.wire.stream import ReadyEvent

_logger = logging.getLogger("canbroker.bus")


class Reception:
    """Receives a channel's messages for any number of threads, which take turns."""

    def __init__(
        self,
        context: Context,
        endpoint: str,
        channel: str,
        client_id: str,
        *,
        label: Any,
        receive_own: bool,
        wake: Wake,
        check_open: Callable[[], None],
        watch: ChannelWatch,
    ) -> None:
        """``label`` is what messages carry as their channel; ``wake`` interrupts every wait.

        ``check_open`` raises when the bus is closed; ``watch`` is kept up to date by who waits.
        """
        self.subscriber = Subscriber(context, endpoint, channel, client_id)
        self.turns = Turns(wake)
        self._client_id = client_id
        self._label = label
        self._receive_own = receive_own
        self._wake = wake
        self._check_open = check_open
        self._watch = watch
        self._queue: deque[Message] = deque()
        self._queue_lock = threading.Lock()
        self._readiness: Readiness | None = None
        self._losses = Throttle(_logger)

    @property
    def filters(self) -> FilterSet:
        return self.subscriber.filters or EVERYTHING

    def __len__(self) -> int:
        """Messages that are decoded and wait to be taken."""
        return len(self._queue)

    def receive(self, timeout: float | None) -> Message | None:
        """The next message, ``None`` if there is none within ``timeout`` seconds.

        :raises CanOperationError: the bus is closed, or its channel is gone.
        """
        message = self._take()
        if message is None:
            message = self._wait_for_one(clock.deadline_after(timeout))
        if self._readiness is not None:
            self._update_readiness()
        return message

    def subscribe(self, wanted: FilterSet, deadline: int | None) -> ReadyEvent:
        """Changes the filters, also for what waits to be taken; in force on return.

        :raises CanTimeoutError: the channel did not confirm them by ``deadline``.
        """
        self._check_open()
        with self.turns.take_soon():
            self._check_open()
            ready, frames = self.subscriber.subscribe(wanted, deadline)
            self._enqueue(frames)
            with self._queue_lock:
                passing = [message for message in self._queue if _passes(wanted, message)]
                self._queue.clear()
                self._queue.extend(passing)
        self._update_readiness()
        return ready

    def fileno(self) -> int:
        """A descriptor that is readable while :meth:`receive` has something; -1 if none can be."""
        self._check_open()
        with self.turns.take_soon():
            self._check_open()
            if self._readiness is None:
                self._readiness = Readiness(self.subscriber.socket)
        self._update_readiness()
        return self._readiness.fileno()

    def follow(self) -> None:
        """Lets libzmq subscribe again after a reconnect, which it does when a socket is used."""
        if self._watch.epoch == self.subscriber.epoch:
            return
        with self.turns.peek() as free:
            if free:
                self.subscriber.readable()

    def close(self) -> None:
        """Closes the sockets; whoever waits must have been woken, and found the bus closed."""
        with self.turns.take_soon():
            if self._readiness is not None:
                self._readiness.close()
                self._readiness = None
            self.subscriber.close()

    def forget(self) -> None:
        """[forked child] Drops what is queued, and the lock that a thread may have held."""
        self._queue_lock = threading.Lock()
        self._queue.clear()

    def _take(self) -> Message | None:
        with self._queue_lock:
            return self._queue.popleft() if self._queue else None

    def _wait_for_one(self, deadline: int | None) -> Message | None:
        while True:
            self._check_open()
            with self.turns.take(deadline) as mine:
                if not mine:
                    return None
                while not self.turns.wanted():
                    self._check_open()
                    message = self._take()
                    if message is not None:
                        return message
                    frames = self.subscriber.receive()
                    if frames:
                        self._enqueue(frames)
                        continue
                    left = clock.remaining_ns(deadline)
                    if left == 0:
                        return None
                    self._watch.silent()  # before the wait: what it waits for is received at once
                    self.subscriber.wait(self._wake, left)

    def _enqueue(self, frames: Sequence[EchoFrame]) -> None:
        me, own, label = self._client_id, self._receive_own, self._label
        messages = [
            Message.from_frame(frame, label, frame.origin != me)
            for frame in frames
            if own or frame.origin != me
        ]
        with self._queue_lock:
            self._queue.extend(messages)
        lost = self.subscriber.lost - self._losses.counts["frames lost"]
        if lost:
            self._losses.note("frames lost", f"{lost} of channel {self._label!r}")
            self._losses.counts["frames lost"] = self.subscriber.lost

    def _update_readiness(self) -> None:
        with self.turns.peek() as free:
            # Whoever holds the turn is about to wait, and to take what comes.
            if free and self._readiness is not None:
                self._readiness.update(bool(self._queue) or self.subscriber.readable())


def _passes(wanted: FilterSet, message: Message) -> bool:
    flags = (EXTENDED if message.is_extended_id else 0) | (ERROR if message.is_error_frame else 0)
    return wanted.matches(message.arbitration_id, flags)
