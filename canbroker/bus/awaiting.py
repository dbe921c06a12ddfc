"""A bus for tasks of an event loop: what :class:`canbroker.Bus` does when it is awaited.

Waits only where nothing has been taken yet, and takes only what it returns at once: a task that
is cancelled takes no message with it, and has not sent what it was to send.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from canbroker.errors import CanOperationError, CanTimeoutError
from canbroker.model.message import Message
from canbroker.system import clock
from canbroker.system.handles import Handle

if TYPE_CHECKING:
    import asyncio

#: How often a wait looks whether the bus is still open; the channel's heartbeats end it as often.
_LOOK_NS: Final = clock.SECOND // 4

#: How often is looked for what has no descriptor: room in the transmit queue.
_POLL_S: Final = 0.005


class Shared(Protocol):
    """A bus, as far as it is awaited."""

    def recv(self, timeout: float | None = None) -> Message | None: ...

    def send(self, msg: Any, timeout: float | None = None) -> None: ...

    def fileno(self) -> int: ...


class AwaitedBus:
    """What a bus does that is awaited. Any number of tasks and event loops, at the same time."""

    async def arecv(self: Shared, timeout: float | None = None) -> Message | None:
        """As ``recv``. Ours. Cancelled, it has not taken a message.

        Other tasks get their turn first, also if a message is there already.
        """
        import asyncio  # noqa: PLC0415 - as much to import as all of a client; here it is already

        deadline = clock.deadline_after(timeout)
        await asyncio.sleep(0)
        while (message := self.recv(0)) is None:
            left = clock.remaining_ns(deadline)
            if left == 0:
                return None
            wait_ns = _LOOK_NS if left is None else min(left, _LOOK_NS)
            await _readable(asyncio.get_running_loop(), self.fileno(), wait_ns / clock.SECOND)
        return message

    async def asend(self: Shared, msg: Any, timeout: float | None = None) -> None:
        """As ``send``. Ours. Cancelled, it has not sent the frame.

        To wait until the driver has taken the frame (``timeout`` above 0) takes a thread. Who is
        cancelled then does not know whether it was sent; it is not any more after ``timeout``.
        """
        import asyncio  # noqa: PLC0415 - as above

        copied = copy(msg)
        if timeout is not None and timeout > 0:
            await asyncio.to_thread(self.send, copied, timeout)
            return
        while True:
            try:
                self.send(copied, 0)
            except CanTimeoutError:  # no room, or a thread is sending: nothing of it was sent
                if timeout is not None:
                    raise
            else:
                return
            await asyncio.sleep(_POLL_S)

    def __aiter__(self: Shared) -> AsyncIterator[Message]:
        """Messages for as long as the bus is open. Ours."""
        return _Messages(self)


class _Messages:
    """The messages of a bus until it is shut down."""

    def __init__(self, bus: Shared) -> None:
        self._bus = bus

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            while (message := await AwaitedBus.arecv(self._bus)) is None:
                continue  # without a timeout it always is one
        except CanOperationError:
            if _is_closed(self._bus):
                raise StopAsyncIteration from None
            raise
        return message


def _is_closed(bus: Shared) -> bool:
    """Whether it is the bus that has ended, and not its channel: it has no descriptor, then."""
    try:
        bus.fileno()
    except CanOperationError:
        return True
    return False


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int, timeout: float) -> None:
    """Waits ``timeout`` seconds, or until the descriptor is readable."""
    import asyncio  # noqa: PLC0415 - as above

    if descriptor < 0:  # where the system has no such thing
        await asyncio.sleep(min(timeout, _POLL_S))
        return
    # Of our own: a loop has one reader for each descriptor, and several tasks may wait. And no
    # other file gets its number if the bus is closed meanwhile.
    own = Handle(os.dup, descriptor)
    happened = loop.create_future()
    loop.add_reader(own.fileno(), _settle, happened)
    try:
        await asyncio.wait([happened], timeout=timeout)
    finally:
        loop.remove_reader(own.fileno())
        own.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
