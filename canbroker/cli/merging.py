"""Messages of several buses as one stream."""

from __future__ import annotations

import selectors
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from canbroker.client import Bus
from canbroker.model.message import Message
from canbroker.system import clock

_BATCH: Final = 1024

#: A bus that is gone reports it only to a reader that waits: each bus is waited for this often.
_LOOK_S: Final = 0.5
_GLANCE_S: Final = 0.001


class Source(NamedTuple):
    """A bus, and what its messages are labelled with."""

    label: str
    bus: Bus


def merge(
    sources: Sequence[Source], silence_s: float | None
) -> Iterator[list[tuple[str, Message]]]:
    """Yields what has arrived, labelled, sorted by time as far as it arrived together.

    :param silence_s: ends when no message has come for so long; ``None`` never ends.
    :raises CanOperationError: a channel is gone.
    """
    with selectors.DefaultSelector() as selector:
        # One bus is waited for by itself, which needs no descriptor: not every system has them.
        for source in sources if len(sources) > 1 else ():
            selector.register(source.bus.fileno(), selectors.EVENT_READ, source)
        deadline = clock.deadline_after(silence_s)
        while True:
            left_ns = clock.remaining_ns(deadline)
            if left_ns == 0:
                return
            wait_s = _LOOK_S if left_ns is None else min(_LOOK_S, left_ns / clock.SECOND)
            batch = _take(sources, selector, wait_s)
            if batch:
                yield batch
                deadline = clock.deadline_after(silence_s)


def _take(
    sources: Sequence[Source], selector: selectors.BaseSelector, wait_s: float
) -> list[tuple[str, Message]]:
    """What comes within ``wait_s`` seconds, as soon as anything does."""
    if len(sources) == 1:
        [(label, bus)] = sources
        return [(label, message) for message in bus.recv_batch(_BATCH, wait_s)]
    ready = {key.data for key, _ in selector.select(wait_s)}
    batch = [
        (label, message)
        for label, bus in sources
        for message in bus.recv_batch(_BATCH, 0 if (label, bus) in ready else _GLANCE_S)
    ]
    return sorted(batch, key=lambda item: item[1].timestamp)
