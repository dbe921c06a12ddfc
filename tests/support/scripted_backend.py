"""A backend that plays a script, and records what it was told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from canbroker.backends import AdapterGoneError, Backend, RepeatKey, Repetition, Transmit
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.filters import FilterSet
from canbroker.model.frame import Frame
from canbroker.system.wake import Wake


class ScriptedBackend(Backend):
    """An adapter whose reads return what a test has scripted with :meth:`will_read`.

    It takes ``capacity`` transmits; those in ``sent`` that were not scripted to end are in flight.
    Nothing in it depends on the time.
    """

    info = "scripted adapter"
    repeats = True
    fd = True

    def __init__(self, capacity: int = 1 << 16) -> None:
        self.capacity = capacity
        self.due: int | None = None
        self.errors: ErrorCounters | None = None
        self.sent: list[Transmit] = []
        self.filters: list[FilterSet] = []
        self.repetitions: dict[RepeatKey, Repetition] = {}
        self._in_flight: list[Transmit] = []
        self._script: deque[Sequence[Frame | Transmit] | AdapterGoneError] = deque()
        self._lost: AdapterGoneError | None = None
        self._wake = Wake()

    # ------------------------------------------------------------------------- for the script

    def will_read(self, *items: Frame | Transmit) -> None:
        """Makes one of the next reads return ``items``; transmits end with it."""
        for item in items:
            if isinstance(item, Transmit):
                self._in_flight.remove(item)
        self._script.append(items)
        self._wake.set()

    def will_be_lost(self, reason: str) -> None:
        """Makes the read after those that are scripted raise."""
        self._script.append(AdapterGoneError(reason))
        self._wake.set()

    def lose(self, reason: str) -> None:
        """Makes the next send raise."""
        self._lost = AdapterGoneError(reason)

    def end(self, count: int | None = None, failure: str | None = None) -> list[Transmit]:
        """Ends the first ``count`` transmits in flight (``None``: all), without a read."""
        ended = self._in_flight[:count]
        self._in_flight = self._in_flight[len(ended) :]
        for number, transmit in enumerate(ended):
            transmit.timestamp_ns = 1_000 + number
            transmit.failure = failure
        return ended

    @property
    def sent_ids(self) -> list[int]:
        """The identifiers of all frames that were handed over, in order."""
        return [transmit.frame.arbitration_id for transmit in self.sent]

    # ----------------------------------------------------------------------------- as a backend

    def fileno(self) -> int:
        return self._wake.fileno()

    def read(self) -> Sequence[Frame | Transmit]:
        if not self._script:
            return ()
        played = self._script.popleft()
        if not self._script:
            self._wake.clear()
        if isinstance(played, AdapterGoneError):
            raise played
        return played

    def error_counters(self) -> ErrorCounters | None:
        return self.errors

    def due_ns(self) -> int | None:
        return self.due

    def room(self, sender: str) -> int:  # noqa: ARG002 - all clients share the room
        return self.capacity - len(self._in_flight)

    def send(self, transmits: Sequence[Transmit]) -> None:
        self._in_flight += transmits
        if self._lost is not None:
            raise self._lost
        self.sent += transmits

    def abandon(self) -> Sequence[Transmit]:
        abandoned, self._in_flight = self._in_flight, []
        return abandoned

    def repeat(self, repetition: Repetition) -> str | None:
        self.repetitions[repetition.key] = repetition
        return None

    def stop_repeating(self, key: RepeatKey) -> None:
        self.repetitions.pop(key, None)

    def repeated(self) -> dict[RepeatKey, int]:
        return dict.fromkeys(self.repetitions, 0)

    def filter(self, filters: FilterSet) -> None:
        self.filters.append(filters)

    def close(self) -> None:
        self._wake.close()
