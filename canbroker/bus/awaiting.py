"""What a bus does in an event loop: the bodies of ``arecv``, ``asend`` and ``async for``.

A task waits only before it has taken anything, and takes only what it returns at once. A task that
is cancelled therefore has neither taken a message nor sent its frame.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from canbroker.bus.watching import add_reader, remove_reader
from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.model.message import Message
from canbroker.system import clock
from canbroker.system.handles import duplicated

if TYPE_CHECKING:
    import asyncio

#: How often a waiting task checks that the bus is still open. Heartbeats wake it as often.
_LOOK_NS: Final = clock.SECOND // 4

#: How often a task checks for room in the transmit queue, which has no descriptor.
_POLL_S: Final = 0.005


class AwaitableBus(Protocol):
    """The methods of a bus that are used here."""

    def recv(self, timeout: float | None = None) -> Message | None: ...

    def send(self, msg: Any, timeout: float | None = None) -> None: ...

    def fileno(self) -> int: ...


async def receive(bus: AwaitableBus, timeout: float | None) -> Message | None:
    """As ``Bus.arecv``."""
    import asyncio  # noqa: PLC0415 - as large as a whole client; a caller has imported it already

    deadline = clock.deadline_after(timeout)
    await asyncio.sleep(0)
    while (message := bus.recv(0)) is None:
        left = clock.remaining_ns(deadline)
        if left == 0:
            return None
        wait_ns = _LOOK_NS if left is None else min(left, _LOOK_NS)
        await readable(asyncio.get_running_loop(), bus.fileno(), wait_ns / clock.SECOND)
    return message


async def send(bus: AwaitableBus, msg: Any, timeout: float | None) -> None:
    """As ``Bus.asend``."""
    import asyncio  # noqa: PLC0415 - as above

    copied = copy(msg)
    if timeout is not None and timeout > 0:
        await asyncio.to_thread(bus.send, copied, timeout)
        return
    while True:
        try:
            bus.send(copied, 0)
        except CanTimeoutError:  # the queue is full, or a thread is sending: nothing was sent
            if timeout is not None:
                raise
        else:
            return
        await asyncio.sleep(_POLL_S)


def messages(bus: AwaitableBus) -> AsyncIterator[Message]:
    """As ``Bus.__aiter__``."""
    return _Messages(bus)


class _Messages:
    """The messages of a bus until it is shut down."""

    def __init__(self, bus: AwaitableBus) -> None:
        self._bus = bus

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            while (message := await receive(self._bus, None)) is None:
                continue  # never happens without a timeout
        except CanOperationError:
            if _is_closed(self._bus):
                raise StopAsyncIteration from None
            raise
        return message


def _is_closed(bus: AwaitableBus) -> bool:
    """Whether the bus itself has ended, and not just its channel: it has no descriptor then."""
    try:
        bus.fileno()
    except CanOperationError:
        return True
    return False


async def readable(loop: asyncio.AbstractEventLoop, descriptor: int, timeout: float) -> None:
    """Waits ``timeout`` seconds, or until the descriptor is readable."""
    import asyncio  # noqa: PLC0415 - as above

    if descriptor < 0:  # this system has none
        await asyncio.sleep(min(timeout, _POLL_S))
        return
    # A duplicate: a loop allows one reader per descriptor, and several tasks may wait. It also
    # keeps the number from being reused for another file when the bus is closed meanwhile.
    own = duplicated(descriptor)
    happened = loop.create_future()
    add_reader(loop, own.fileno(), functools.partial(_mark_done, happened))
    try:
        await asyncio.wait([happened], timeout=timeout)
    finally:
        remove_reader(loop, own.fileno())
        own.close()


def _mark_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
