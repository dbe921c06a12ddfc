"""Connects the actor's two threads to the driver's two threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from canbroker.backends.base import AdapterGoneError, BusCondition, Transmit
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.system.wake import Wake

#: Transmits that were handed over and not read back. Drivers have queues of their own.
CAPACITY: Final = 64

#: Received frames that wait to be read; half a second of a full bus at 1 Mbit/s.
MAX_FRAMES: Final = 8192


class Exchange:
    """Transmits on their way to the driver; frames and finished transmits on their way back.

    The actor's side: :meth:`take`, :meth:`put`, :meth:`room`, :meth:`abandon`, :meth:`close`. The
    driver's side: :meth:`next_transmit`, :meth:`finished`, :meth:`received`, :meth:`lost_frames`,
    :meth:`tell`, :meth:`lose`. Either side may end it, for both.
    """

    def __init__(self, adapter: str) -> None:
        """``adapter`` is its name in errors."""
        self._adapter = adapter
        #: Frames that came while MAX_FRAMES were unread, and those that the driver reports as lost.
        self.dropped = 0
        self.condition = BusCondition()  # as the controller last reported
        self._changed = threading.Condition()
        self._happened: deque[Frame | Transmit] = deque()
        self._queue: deque[Transmit] = deque()
        self._sending: Transmit | None = None
        self._outstanding = 0  # transmits that were put and have not been returned
        self._end: AdapterGoneError | None = None
        self._wake = Wake()

    @property
    def ended(self) -> bool:
        return self._end is not None

    def fileno(self) -> int:
        return self._wake.fileno()

    # ------------------------------------------------------------------------ the actor's side

    def take(self) -> list[Frame | Transmit]:
        """[recv] All that has happened since the last call.

        :raises AdapterGoneError: it has ended, and all that came before was taken.
        """
        self._wake.clear()  # first: any later event sets it again
        with self._changed:
            happened = list(self._happened)
            self._happened.clear()
            self._outstanding -= sum(isinstance(item, Transmit) for item in happened)
            end = self._end
        if end is None:
            return happened
        self._wake.set()
        if happened:
            return happened
        raise end

    def room(self) -> int:
        return max(0, CAPACITY - self._outstanding)

    def put(self, transmits: Sequence[Transmit]) -> None:
        """[send] Queues transmits for the driver.

        :raises AdapterGoneError: it has ended; :meth:`abandon` returns them.
        """
        with self._changed:
            self._queue.extend(transmits)
            self._outstanding += len(transmits)
            self._changed.notify_all()
            if self._end is not None:
                raise self._end

    def abandon(self) -> list[Transmit]:
        """Every transmit that was put and not read. Stops waiting for those that the driver has."""
        with self._changed:
            unread = [item for item in self._happened if isinstance(item, Transmit)]
            under_way = [] if self._sending is None else [self._sending]
            left = [*unread, *under_way, *self._queue]
            self._happened.clear()
            self._queue.clear()
            self._sending = None
            self._outstanding = 0
            return left

    def close(self) -> None:
        """Gives the descriptor back; after :meth:`lose`, when nobody polls it any more."""
        self._wake.close()

    # ----------------------------------------------------------------------- the driver's side

    def next_transmit(self) -> Transmit | None:
        """The next transmit for the driver, waiting for one; ``None`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._end)
            if self._end is not None:
                return None  # nothing stale is sent
            self._sending = self._queue.popleft()
            return self._sending

    @property
    def has_more(self) -> bool:
        """Whether other transmits wait for the driver."""
        return bool(self._queue)

    def finished(self, transmit: Transmit, failure: str | None) -> None:
        """The driver has accepted the transmit, or failed (``failure``)."""
        with self._changed:
            if self._sending is not transmit:
                return  # it was abandoned, and has been answered
            self._sending = None
            transmit.failure = failure
            if failure is None:
                transmit.timestamp_ns = clock.wall_ns()
            self._happened.append(transmit)
        self._wake.set()

    def received(self, frames: Sequence[Frame]) -> None:
        """Frames from the bus, in its order."""
        with self._changed:
            room = max(0, MAX_FRAMES - len(self._happened))
            self._happened.extend(frames[:room])
            self.dropped += len(frames) - len(frames[:room])
        self._wake.set()

    def lost_frames(self, count: int) -> None:
        """Counts received frames that the driver reports as lost."""
        with self._changed:
            self.dropped += count
        self._wake.set()

    def tell(self, condition: BusCondition) -> None:
        """Sets the condition of the bus."""
        if condition != self.condition:
            self.condition = condition
            self._wake.set()

    def wait_for_end(self, timeout_s: float) -> bool:
        """Waits until it has ended, ``timeout_s`` at most; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout_s)

    def lose(self, reason: str) -> None:
        """Ends it: the adapter is gone, because of ``reason``. The first reason stays."""
        with self._changed:
            self._end = self._end or AdapterGoneError(f"{self._adapter} is gone: {reason}")
            self._changed.notify_all()
        self._wake.set()
