"""Descriptors that a thread watches, for what cannot watch them itself.

Windows and macOS cannot poll a set of descriptors as one, and the event loop of Windows watches no
descriptors. So one thread of this process does, and passes on what it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from canbroker.bus.periodic.timer import Timer
from canbroker.system import handles

if TYPE_CHECKING:
    import asyncio


def watch() -> Timer:
    """The thread of this process: ``arm`` and ``disarm``. No function of a user runs on it."""
    handles.register(in_child=_watch.forget)
    return _watch


def add_reader(
    loop: asyncio.AbstractEventLoop, descriptor: int, callback: Callable[[], object]
) -> None:
    """As ``loop.add_reader``, also for loops that have none. Call it on the loop's thread."""
    try:
        loop.add_reader(descriptor, callback)
    except NotImplementedError:
        remove_reader(loop, descriptor)
        relay = _relays[loop, descriptor] = _Relay(loop, descriptor, callback)
        relay.arm()


def remove_reader(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    """As ``loop.remove_reader``; likewise."""
    try:
        loop.remove_reader(descriptor)
    except NotImplementedError:
        relay = _relays.pop((loop, descriptor), None)
        if relay is not None:
            relay.end()


class _Relay:
    """Calls back in an event loop while a descriptor is readable."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, callback: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._callback = callback
        self._ended = False

    def arm(self) -> None:
        watch().arm(self._descriptor, self._tell)

    def end(self) -> None:
        self._ended = True
        watch().disarm(self._descriptor, self._tell)

    def _tell(self) -> None:
        """[the watching thread]"""
        try:
            self._loop.call_soon_threadsafe(self._call)
        except RuntimeError:
            if not self._loop.is_closed():  # nobody waits any more
                raise

    def _call(self) -> None:
        if not self._ended:
            self._callback()
        if not self._ended:
            self.arm()


_watch: Final = Timer("canbroker-watch")
_relays: dict[tuple[asyncio.AbstractEventLoop, int], _Relay] = {}
