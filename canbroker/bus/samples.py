"""Received values of signals, and what a program may wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from canbroker.signals.selection import Key
from canbroker.signals.values import text_of

#: What to wait for: a number, the label of an enumeration, or a function of the number.
Condition: TypeAlias = "Callable[[int | float], object] | int | float | str"


class Sample(NamedTuple):
    """A value of a signal that was received.

    ``value`` is a number in ``unit`` (empty: none); ``label`` what the database calls it, if it is
    one of an enumeration. ``timestamp``: seconds since 1970, of its frame, whose identifier is
    ``arbitration_id``: with J1939, it has the address of the sender.
    """

    message: str
    name: str
    value: int | float
    label: str | None
    unit: str
    timestamp: float
    arbitration_id: int

    def __str__(self) -> str:
        return text_of(self.value, self.label, self.unit)


def fulfils(sample: Sample, condition: Condition) -> bool:
    """Whether a value is what is waited for."""
    if callable(condition):
        return bool(condition(sample.value))
    if isinstance(condition, str):
        return sample.label == condition
    return sample.value == condition


class Inbox:
    """Samples of one signal, for a caller that waits for one of them."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._samples: deque[Sample] = deque()

    def put(self, key: Key, sample: Sample) -> None:
        """Keeps the sample if it is one of our signal."""
        if key == self._key:
            self._samples.append(sample)

    def take(self, condition: Condition) -> Sample | None:
        """The first sample that fulfils it; those before it are dropped."""
        while self._samples:
            sample = self._samples.popleft()
            if fulfils(sample, condition):
                return sample
        return None
