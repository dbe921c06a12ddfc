"""Decoded messages and their signals, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class SignalInfo(NamedTuple):
    """A signal of a database. ``labels``: what it calls its values, if it is an enumeration.

    The identifier is that of its message, or, with J1939, of one that has its PGN.
    """

    message: str
    name: str
    unit: str
    labels: Mapping[int, str]
    arbitration_id: int
    is_extended_id: bool


class SignalValue(NamedTuple):
    """A signal of a frame.

    ``value`` is a number in ``unit`` (empty: none). ``label``: what the database calls this value,
    if it is one of an enumeration.
    """

    name: str
    value: int | float
    label: str | None = None
    unit: str = ""

    def __str__(self) -> str:
        return text_of(self.value, self.label, self.unit)


def text_of(value: float, label: str | None, unit: str) -> str:
    """A value for people: its label, if it has one, else the number and its unit."""
    if label is not None:
        return label
    return f"{value} {unit}" if unit else str(value)


class Decoded(NamedTuple):
    """What a frame says.

    ``message``: its name. ``signals``: in the order of the database; of a multiplexed message,
    those that the frame has. ``problem``: why the data is not that of the message, which then has
    no signals. ``contained``: the messages in the frame if it is a container; ``signals`` has
    theirs, too, as ``MESSAGE.SIGNAL``.
    """

    message: str
    signals: tuple[SignalValue, ...] = ()
    problem: str = ""
    contained: tuple[Decoded, ...] = ()

    @property
    def problems(self) -> str:
        """What does not decode: the message, or some of those in it; empty if all is well."""
        return self.problem or "; ".join(each.problem for each in self.contained if each.problem)

    def __str__(self) -> str:
        """As ``cantools decode --single-line`` writes it, without the blank before it."""
        if self.contained:
            return f"{self.message}({', '.join(map(_contained, self.contained))})"
        if self.problem:
            return self.problem
        return f"{self.message}({', '.join(f'{each.name}: {each}' for each in self.signals)})"


def _contained(decoded: Decoded) -> str:
    return decoded.problem or f" {decoded}"
