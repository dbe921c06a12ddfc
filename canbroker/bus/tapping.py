"""Taps into open buses: all their frames, and what kept others from arriving, as one stream.

A bus finds the broker, opens the channel and keeps it open; its subscriber is what a
:class:`~canbroker.delivery.tap.Tap` reads instead of the bus.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from canbroker.bus.receiving import Reception
from canbroker.delivery.tap import Feed, Tap


class Tappable(Protocol):
    """An open bus whose messages nobody receives."""

    _reception: Reception


def tap(buses: Iterable[tuple[str, Tappable]]) -> Tap:
    """One stream of what these buses would receive, each under the name given with it.

    The buses must stay open while the stream is read, and nobody else may receive from them.
    Messages that a bus has received before, such as its ``history``, are not part of the stream.

    :raises CanOperationError: no file descriptor is left.
    """
    return Tap([Feed(name, bus._reception.subscriber) for name, bus in buses])
