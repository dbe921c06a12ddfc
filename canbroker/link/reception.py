"""The receiving half of a bus: frames become messages, and wait until someone takes them."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from canbroker import clock
from canbroker.errors import CanTimeoutError
from canbroker.fabric.readiness import Readiness
from canbroker.fabric.sockets import Context
from canbroker.fabric.subscriber import Subscriber
from canbroker.filters import EVERYTHING, FilterSet
from canbroker.frame import ERROR, EXTENDED
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
        control: str,
        channel: str,
        client_id: str,
        *,
        label: Any,
        receive_own: bool,
        check_open: Callable[[], None],
        watch: ChannelWatch,
        claim: str | None = None,
    ) -> None:
        """``label`` is what messages carry as their channel.

        ``check_open`` raises when the bus is closed; ``watch`` is kept up to date by who waits.
        """
        self.subscriber = Subscriber(context, endpoint, channel, client_id, control, claim)
        self.wake = Wake()  # interrupts a wait, to look whether the bus is closed
        self.turns = Turns(self.wake)
        self._client_id = client_id
        self._label = label
        self._receive_own = receive_own
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
        ready = self.turns.take_soon(functools.partial(self._change, wanted, deadline))
        self._update_readiness()
        return ready

    def fileno(self) -> int:
        """A descriptor that is readable while :meth:`receive` has something; -1 if none can be."""
        self._check_open()
        descriptor = self.turns.take_soon(self._descriptor)
        self._update_readiness()
        return descriptor

    def follow(self) -> None:
        """Lets libzmq subscribe again after a reconnect, which it does when a socket is used."""
        if self._watch.epoch != self.subscriber.order.epoch:
            self.turns.if_free(self.subscriber.readable)

    def close(self) -> None:
        """Closes the sockets; whoever waits must have been woken, and found the bus closed."""
        self.turns.take_soon(self._close)
        self.wake.close()

    def forget(self) -> None:
        """[forked child] Drops what is queued, and the lock that a thread may have held."""
        self._queue_lock = threading.Lock()
        self._queue.clear()

    def _take(self) -> Message | None:
        with self._queue_lock:
            return self._queue.popleft() if self._queue else None

    def _wait_for_one(self, deadline: int | None) -> Message | None:
        """Waits in long turns, until one of them ends with something else than a short job."""
        job = functools.partial(self._hold, deadline)
        while True:
            self._check_open()
            try:
                over, message = self.turns.take(deadline, job)
            except CanTimeoutError:
                return None
            if over:
                return message

    def _hold(self, deadline: int | None) -> tuple[bool, Message | None]:
        """A long turn: whether the wait is over, and with what."""
        while not self.turns.wanted():
            self._check_open()
            message = self._take()
            if message is not None:
                return True, message
            if self.subscriber.receive():
                self._enqueue()
                continue
            left = clock.remaining_ns(deadline)
            if left == 0:
                self.subscriber.check_alive()
                return True, None
            self._watch.silent()  # before the wait: what it waits for is received at once
            self.subscriber.wait(self.wake, left)
        return False, None

    def _enqueue(self) -> None:
        """Takes over what the subscriber has received."""
        messages = self._decoded()
        with self._queue_lock:
            # No call in between: an exception strikes before both of them, or after.
            self._queue += messages
            self.subscriber.order.frames = []
        self._report_losses()

    def _change(self, wanted: FilterSet, deadline: int | None) -> ReadyEvent:
        self._check_open()
        ready = self.subscriber.subscribe(wanted, deadline)
        messages = self._decoded()
        with self._queue_lock:
            waiting = deque(m for m in (*self._queue, *messages) if _passes(wanted, m))
            self._queue = waiting  # as above
            self.subscriber.order.frames = []
        self._report_losses()
        return ready

    def _decoded(self) -> list[Message]:
        me, own, label = self._client_id, self._receive_own, self._label
        return [
            Message.from_frame(frame, label, frame.origin != me)
            for frame in self.subscriber.order.frames
            if own or frame.origin != me
        ]

    def _report_losses(self) -> None:
        losses, self.subscriber.order.losses = self.subscriber.order.losses, []
        for _, loss in losses:
            self._losses.note(f"frames of channel {self._label!r} lost", str(loss))

    def _descriptor(self) -> int:
        self._check_open()
        if self._readiness is None:
            self._readiness = Readiness(self.subscriber.sockets)
        return self._readiness.fileno()

    def _update_readiness(self) -> None:
        # Whoever holds the turn is about to wait, and to take what comes.
        self.turns.if_free(self._look)

    def _look(self) -> None:
        if self._readiness is not None:
            self._readiness.update(bool(self._queue) or self.subscriber.readable())

    def _close(self) -> None:
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        self.subscriber.close()


def _passes(wanted: FilterSet, message: Message) -> bool:
    flags = (EXTENDED if message.is_extended_id else 0) | (ERROR if message.is_error_frame else 0)
    return wanted.matches(message.arbitration_id, flags)
