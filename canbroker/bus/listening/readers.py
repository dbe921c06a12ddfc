"""Receiving from one bus, for a Notifier: on a thread of its own, or in an event loop."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from canbroker.bus.watching import add_reader, remove_reader
from canbroker.system import clock
from canbroker.system.handles import duplicated
from canbroker.system.undisturbed import undisturbed
from canbroker.system.wake import Wake
from canbroker.transport.waiter import Waiter

if TYPE_CHECKING:
    import asyncio

#: How often a reader checks that its bus is open. The heartbeats of the channel wake it as often.
_LOOK_S: Final = 0.25

#: Messages that a reader passes on before other readers get their turn.
_AT_ONCE: Final = 1_000

_logger = logging.getLogger("canbroker.bus.listening.notifier")


class Source(Protocol):
    """A bus that messages are received from: ours, or one of python-can's."""

    def recv(self, timeout: float | None = None) -> Any: ...

    def fileno(self) -> int: ...


def descriptor_of(bus: Source) -> int:
    """A descriptor that is readable when ``bus`` has a message; -1 if it has none."""
    try:
        return bus.fileno()
    except NotImplementedError:
        return -1


class Reader(ABC):
    """Receives from one bus until it is stopped, or the bus is shut down (``ended``)."""

    def __init__(
        self,
        bus: Source,
        descriptor: int,
        deliver: Callable[[Any], object],
        report: Callable[[Exception], object],
    ) -> None:
        self.bus = bus
        self.ended = False
        # A duplicate: it stays open when the bus closes, so no other file gets its number.
        self._copy = duplicated(descriptor) if descriptor >= 0 else None
        self._descriptor = -1 if self._copy is None else self._copy.fileno()
        self._deliver = deliver
        self._report = report
        self._stopping = False
        self._failing = False

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None:
        """Receives no further message. Returns at once. Idempotent."""

    @abstractmethod
    def join(self, timeout: float) -> bool:
        """Whether it has ended within ``timeout`` seconds."""

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the caller is a listener that this reader has called."""

    def receive(self, timeout: float | None) -> bool:
        """Passes on messages, waiting ``timeout`` s for each; whether the bus works."""
        try:
            recv, deliver = self.bus.recv, self._deliver  # are called thousands of times a second
            for _ in range(_AT_ONCE):
                if self._stopping or (message := recv(timeout)) is None:
                    break
                deliver(message)
        except Exception as error:  # noqa: BLE001 - passed on, whatever a driver raises
            self._fail(error)
            return False
        self._failing = False
        return True

    def _fail(self, error: Exception) -> None:
        """Reports an exception of ``recv``, once until the bus works again."""
        self.ended = self._descriptor >= 0 and _is_closed(self.bus)
        if not self._failing:
            self._failing = True
            self._report(error)

    def _close(self) -> None:
        if self._copy is not None:
            self._copy.close()


def _is_closed(bus: Source) -> bool:
    """Whether a bus that had a descriptor is shut down: it has none any more."""
    try:
        return bus.fileno() < 0
    except Exception:  # whatever a driver raises
        _logger.debug("%r has no descriptor any more", bus, exc_info=True)
        return True


class ThreadReader(Reader):
    """On a thread of its own."""

    def __init__(
        self,
        bus: Source,
        descriptor: int,
        deliver: Callable[[Any], object],
        report: Callable[[Exception], object],
        timeout: float | None,
    ) -> None:
        super().__init__(bus, descriptor, deliver, report)
        self._timeout = timeout
        self._wake = Wake()
        # A daemon: it runs until it is stopped.
        self._thread = threading.Thread(target=self._run, name=f"notifier of {bus!r}", daemon=True)

    def start(self) -> None:
        undisturbed(self._thread.start)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def join(self, timeout: float) -> bool:
        if self._thread.ident is None:  # it was interrupted before it was started
            self._close()
            self._wake.close()
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            if self._descriptor < 0:
                self._run_blocking()
            else:
                self._run_waiting()
        finally:
            self._close()
            self._wake.close()

    def _run_waiting(self) -> None:
        waiter = Waiter()
        waiter.add(self._wake)
        waiter.add(self._descriptor)
        while not self._stopping:
            if self.receive(0):
                waiter.wait(int(_LOOK_S * clock.SECOND))
            elif self.ended:
                return
            else:
                self._pause()

    def _run_blocking(self) -> None:
        while not self._stopping:
            if not self.receive(self._timeout):
                self._pause()

    def _pause(self) -> None:
        """Waits for a moment, or until it is stopped."""
        waiter = Waiter()
        waiter.add(self._wake)
        waiter.wait(int(_LOOK_S * clock.SECOND))


class LoopReader(Reader):
    """In an event loop, whose thread calls everything here."""

    def __init__(
        self,
        bus: Source,
        descriptor: int,
        deliver: Callable[[Any], object],
        report: Callable[[Exception], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(bus, descriptor, deliver, report)
        self._loop = loop
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        # Messages that are there already are passed on with the first event: listeners are not
        # called before the Notifier's constructor has returned.
        add_reader(self._loop, self._descriptor, self._on_readable)
        self._next_look = self._loop.call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        self._stopping = True
        if self._next_look is not None:
            self._next_look.cancel()
        if self._copy is not None and self._copy.fileno() >= 0 and not self._loop.is_closed():
            remove_reader(self._loop, self._descriptor)
        self._close()

    def join(self, timeout: float) -> bool:  # noqa: ARG002 - nothing of it is left to wait for
        return True

    def is_current(self) -> bool:
        return False

    def _on_readable(self) -> None:
        if not self.receive(0) and not self._stopping:
            remove_reader(self._loop, self._descriptor)  # it may stay readable; until the next look

    def _look(self) -> None:
        well = self.receive(0)
        if self._stopping or self.ended:
            return
        if well:
            add_reader(self._loop, self._descriptor, self._on_readable)
        self._next_look = self._loop.call_later(_LOOK_S, self._look)
