"""The two links of a client with everything that happens on them written down beforehand.

Time passes only while the client waits, so a test says at which nanosecond something arrives and
takes no time itself.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class _Script(Generic[_T]):
    """What arrives, and when. ``time_ns`` is the time now."""

    def __init__(self) -> None:
        self.time_ns = 0
        self._arrivals: deque[tuple[int, _T]] = deque()

    def now(self) -> int:
        return self.time_ns

    def at(self, time_ns: int, message: _T) -> None:
        """Has ``message`` arrive at that time, which is not before the one added last."""
        self._arrivals.append((time_ns, message))

    def receive(self) -> _T | None:
        return self._arrivals.popleft()[1] if self.readable() else None

    def readable(self) -> bool:
        return bool(self._arrivals) and self._arrivals[0][0] <= self.time_ns

    def _pass_time(self, timeout_ns: int | None) -> bool:
        """Waits for the next arrival; whether it came within ``timeout_ns``."""
        arrival = self._arrivals[0][0] if self._arrivals else None
        assert (arrival, timeout_ns) != (None, None), "a wait for ever"
        end = arrival if timeout_ns is None else self.time_ns + max(0, timeout_ns)
        if arrival is not None and end is not None and arrival <= end:
            self.time_ns = max(self.time_ns, arrival)
            return True
        assert end is not None
        self.time_ns = end
        return False


class ScriptedTransmitLink(_Script[bytes]):
    """Has the requests that were ``sent``; there is ``room`` for more as long as that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.room = True
        self.closed = False
        self.interruptions = 0
        self.renewed = 0
        self._kept: bytes | None = None

    def send(self, request: bytes) -> bool:
        if self.room:
            self.sent.append(request)
        return self.room

    def receive(self) -> bytes | None:
        """Again and again the same reply, until it is done."""
        if self._kept is None:
            self._kept = super().receive()
        return self._kept

    def done(self) -> None:
        self._kept = None

    def renew(self) -> None:
        self.renewed += 1

    def wait(self, wake: Any, timeout_ns: int | None) -> None:  # noqa: ARG002 - nobody closes it
        self._pass_time(timeout_ns)

    def close(self) -> None:
        self.closed = True


class ScriptedStream(_Script[tuple[bytes, bytes]]):
    """Has the ``topics`` that are subscribed to, and how often each ``joined`` so far."""

    socket: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.topics: set[bytes] = set()
        self.joined: list[bytes] = []
        self.closed = False

    def subscribe(self, topic: bytes) -> None:
        self.topics.add(topic)
        self.joined.append(topic)

    def unsubscribe(self, topic: bytes) -> None:
        self.topics.discard(topic)

    def wait(self, timeout_ns: int | None, *_others: Any) -> bool:
        return self._pass_time(timeout_ns)

    def problem(self) -> str | None:
        return None

    def close(self) -> None:
        self.closed = True
