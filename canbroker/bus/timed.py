"""Sends frames of an open bus ahead of time; the channel keeps them until they are due.

A process that sleeps until each frame is due, and then sends it, is late by its own wake-up and by
its way to the channel. A frame that is there already is sent by the channel's own clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from canbroker.bus.connection import Connection
from canbroker.bus.sending import Sending, Timed


class Sendable(Protocol):
    """An open bus on which nobody else sends."""

    _connection: Connection
    _sending: Sending


class TimedSending:
    """Sends frames with due times. One thread, the only one that sends on the bus."""

    def __init__(self, bus: Sendable, on_late: Callable[[int], None]) -> None:
        """``on_late`` is called with the time in nanoseconds from when frames were due until the
        adapter took the last of them, for frames with a due time."""
        self._connection = bus._connection
        self._sending = bus._sending
        self._on_late = on_late
        self._due: deque[tuple[int, int]] = deque()  # tokens, and when their frames were due
        self._sending.transmitter.on_taken = self._taken

    @property
    def fd(self) -> bool:
        """Whether the channel takes CAN FD frames."""
        return self._connection.opening.fd

    def send(self, requests: Sequence[Timed]) -> None:
        """Hands frames to the channel, at most ``MAX_FRAMES`` a request; waits for room.

        :raises CanOperationError: the channel is down, or an earlier frame has failed.
        """
        token = self._sending.transmitter.token  # of the request before
        # First: answers may come while later ones are handed over.
        self._due += ((token + at, due_ns) for at, (_, due_ns) in enumerate(requests, 1) if due_ns)
        self._sending.send_timed(requests)

    def pending(self) -> int:
        """Frames that the adapter has not taken yet, as far as is known now."""
        return self._sending.pending()

    def _taken(self, token: int, wall_ns: int) -> None:
        due_ns = 0
        while self._due and self._due[0][0] <= token:
            taken, due_ns = self._due.popleft()
            if taken != token:
                due_ns = 0  # the answer's time is that of its last request
        if due_ns:
            state = self._connection.watch.state  # has both clocks of the channel's host
            channel_ns = self._connection.watch.clock.deadline(due_ns)
            self._on_late(wall_ns - channel_ns - (state.wall_ns - state.monotonic_ns))
