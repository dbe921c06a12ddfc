"""The end of an actor that runs an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from canbroker.bus import watching
from canbroker.transport.waiter import Descriptor


@contextmanager
def ended_by(ends: Sequence[Descriptor]) -> Iterator[asyncio.Event]:
    """An event of the running loop that is set when one of ``ends`` becomes readable."""
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()

    def stop_watching() -> None:
        for end in ends:
            watching.remove_reader(loop, end.fileno())

    def note() -> None:
        stop_watching()  # it stays readable: the loop would call this in each of its turns
        is_over.set()

    for end in ends:
        watching.add_reader(loop, end.fileno(), note)
    try:
        yield is_over
    finally:
        stop_watching()
