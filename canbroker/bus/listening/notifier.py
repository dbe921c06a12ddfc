"""Passes the messages of buses to listeners, on its own threads or in an event loop."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from canbroker.bus.listening.readers import LoopReader, Reader, Source, ThreadReader, descriptor_of
from canbroker.bus.ownership import Uncopyable, add_report
from canbroker.system import locks
from canbroker.system.locks import Rank
from canbroker.system.throttle import Throttle
from canbroker.system.undisturbed import to_the_end

if TYPE_CHECKING:
    import asyncio

_logger = logging.getLogger("canbroker.bus.listening.notifier")

#: Seconds to wait for listeners that are running.
_STOP_S: Final = 5.0

#: Called with each message. Ours expect a :class:`canbroker.Message`, python-can's writers a
#: ``can.Message``, and both accept the other.
Recipient: TypeAlias = Callable[[Any], object]


class Notifier(Uncopyable):
    """Passes each message of one or several buses to all listeners, in order of arrival.

    Each bus has a thread; listeners are called on it, by one thread at a time. With ``loop``
    they are called in that event loop, the coroutines that they return run there, and all
    methods belong there, too. Buses without a ``fileno`` have a thread all the same.

    Exceptions of listeners and buses are passed to every ``on_error``, and logged if there is
    none; then the Notifier continues. ``exception`` is the last of them. The thread of a bus ends
    when the bus is shut down; after another failure it tries again.
    """

    def __init__(
        self,
        bus: Source | Sequence[Source],
        listeners: Iterable[Recipient],
        timeout: float | None = 1.0,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Starts at once.

        :param listeners: :class:`canbroker.Listener` or anything else that can be called.
        :param timeout: for buses without a ``fileno``, the ``timeout`` of each ``recv`` in seconds;
            :meth:`stop` may take as long. Other buses ignore it, as they can be interrupted.
        :param loop: calls the listeners.
        :raises ValueError: a bus has a Notifier already; nothing is started then.
        :raises CanOperationError: a bus is closed. As above.
        """
        self.listeners: list[Recipient] = list(listeners)
        self.timeout = timeout
        self.exception: Exception | None = None
        self._loop = loop
        self._buses: list[Source] = [*bus] if isinstance(bus, Sequence) else [bus]
        self._readers: list[Reader] = []
        self._stopped = True
        self._over = False  # the listeners were stopped
        self._delivery = locks.make(Rank.LISTENERS)  # one thread at a time calls them
        self._tasks: set[asyncio.Task[object]] = set()  # asyncio itself would forget them
        self._errors = Throttle(_logger)
        self._unstopped: list[Recipient] = []  # listeners that have to be stopped
        self._ended = True
        try:
            self.start()
        except BaseException:
            self._abort()
            raise

    @property
    def bus(self) -> Source | tuple[Source, ...]:
        """The bus, or all if there are several."""
        return self._buses[0] if len(self._buses) == 1 else tuple(self._buses)

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called, and :meth:`start` was not since."""
        return self._stopped

    @staticmethod
    def find_instances(bus: Source) -> tuple[Notifier, ...]:
        """The Notifier that receives from ``bus`` now: one or none."""
        with _active_lock:
            return tuple(notifier for other, notifier in _active if other is bus)

    def start(self) -> None:
        """Starts again after :meth:`stop`, and so do those listeners that have a ``start()``. Ours.

        :raises ValueError: a bus has got another Notifier meanwhile; nothing is started then.
        :raises CanOperationError: a bus is closed. As above.
        """
        with self._delivery:  # nobody is called before all is ready
            if not self._stopped:
                return
            sources = [(bus, descriptor_of(bus)) for bus in self._buses]
            try:
                _claim(self._buses, self)
                self._stopped = self._over = self._ended = False
                for listener in tuple(self.listeners):
                    if callable(start := getattr(listener, "start", None)):
                        start()
                for bus, descriptor in sources:
                    self._read(bus, descriptor)
            except BaseException:
                self._abort()
                raise

    def stop(self, timeout: float = _STOP_S) -> None:
        """Ends the threads, then stops each listener that has a ``stop()``. Idempotent.

        Messages that were not received yet stay in the bus. May be called by a listener, which
        is the last one to be called then.

        :param timeout: seconds to wait for listeners that are running.
        :raises Exception: the first exception of a listener's ``stop()``, after all of them were
            stopped.
        """
        failure = self._end(timeout)
        if failure is not None:
            raise failure

    def _abort(self) -> None:
        """Undoes a start that has failed."""
        _release(self)
        if not self._ended:
            self._end(_STOP_S)

    def _end(self, timeout: float) -> Exception | None:
        """As :meth:`stop`; returns what that raises."""
        return to_the_end(functools.partial(self._end_readers, timeout))

    def _end_readers(self, timeout: float) -> Exception | None:
        if self._ended:
            return None
        self._stopped = True
        deadline = time.monotonic() + timeout
        readers = tuple(self._readers)
        for reader in readers:
            reader.stop()
        if not any(reader.is_current() for reader in readers):
            for reader in readers:
                if not reader.join(max(0.0, deadline - time.monotonic())):
                    _logger.warning("%r is still at work", reader.bus)
        if not self._over:
            self._unstopped = list(self.listeners)
        self._over = True
        _release(self)
        failure = self._stop_listeners()
        self._readers = []
        self._ended = True
        return failure

    def add_bus(self, bus: Source) -> None:
        """Receives from ``bus`` as well, now or when it is started.

        :raises ValueError: the bus has a Notifier already.
        """
        with self._delivery:
            if not self._stopped:
                descriptor = descriptor_of(bus)
                _claim([bus], self)
                self._read(bus, descriptor)
            self._buses.append(bus)

    def add_listener(self, listener: Recipient) -> None:
        """Calls ``listener``, too; twice per message if it was added twice."""
        self.listeners.append(listener)

    def remove_listener(self, listener: Recipient) -> None:
        """:raises ValueError: it is not there."""
        self.listeners.remove(listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failure = self._end(_STOP_S)
        if failure is not None and exc is None:
            raise failure
        if failure is not None and exc is not None:
            add_report(exc, failure)

    def _read(self, bus: Source, descriptor: int) -> None:
        loop = self._loop
        deliver: Callable[[Any], object] = self._deliver
        report: Callable[[Exception], object] = self._report
        reader: Reader
        if loop is not None and descriptor >= 0:
            reader = LoopReader(bus, descriptor, deliver, report, loop)
        else:
            if loop is not None:  # the thread hands everything over to it
                deliver, report = _handed_to(loop, deliver), _handed_to(loop, report)
            reader = ThreadReader(bus, descriptor, deliver, report, self.timeout)
        self._readers.append(reader)
        reader.start()

    def _deliver(self, message: Any) -> None:
        with self._delivery:
            for listener in tuple(self.listeners):
                if self._over:
                    return
                try:
                    result = listener(message)
                except SystemExit:  # it would end the thread silently
                    self._report(RuntimeError(f"{listener!r} has called sys.exit()"))
                except Exception as error:  # noqa: BLE001 - reported, whatever it is
                    self._report(error)
                else:
                    if result is not None and isinstance(result, Coroutine):
                        self._run(result)

    def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        if self._loop is None:
            coroutine.close()
            self._report(TypeError("a listener that is a coroutine needs a Notifier with a loop"))
            return
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Calls every ``on_error``."""
        with self._delivery:
            self.exception = error
            told = [_tell(listener, error) for listener in tuple(self.listeners)]
            if not any(told):
                kind = f"a listener or a bus has raised {type(error).__name__}"
                self._errors.note(kind, str(error), logging.ERROR, error)

    def _stop_listeners(self) -> Exception | None:
        """Stops each of them; returns the first exception that one has raised."""
        failure: Exception | None = None
        while self._unstopped:
            listener = self._unstopped[0]
            try:
                if callable(stop := getattr(listener, "stop", None)):
                    stop()
            except Exception as error:
                _logger.exception("%r does not stop", listener)
                failure = failure or error
            del self._unstopped[:1]
        return failure


def _handed_to(
    loop: asyncio.AbstractEventLoop, call: Callable[[Any], object]
) -> Callable[[Any], object]:
    """``call``, for another thread than the loop's."""

    def hand_over(argument: Any) -> None:
        loop.call_soon_threadsafe(call, argument)

    return hand_over


def _tell(listener: Recipient, error: Exception) -> bool:
    """Whether ``listener`` has handled the error."""
    on_error = getattr(listener, "on_error", None)
    if on_error is None:
        return False
    try:
        on_error(error)
    except NotImplementedError:  # it means that there is none
        return False
    except Exception:
        _logger.exception("on_error of %r has failed", listener)
    return True


# --------------------------------------------------------------------------- one Notifier per bus

_active: list[tuple[Source, Notifier]] = []
_active_lock = locks.make(Rank.NOTIFIERS)


def _claim(buses: Sequence[Source], notifier: Notifier) -> None:
    """:raises ValueError: a bus has a Notifier already; none is claimed then."""
    claimed: Source | None = None
    with _active_lock:
        taken = [bus for bus, _ in _active]
        for bus in buses:
            if any(other is bus for other in taken):
                claimed = bus
                break
            taken.append(bus)
        else:
            _active.extend((bus, notifier) for bus in buses)
    if claimed is not None:  # its repr() takes locks of its own
        raise ValueError(f"{claimed!r} has a Notifier already, which is to be stopped first")


def _release(notifier: Notifier) -> None:
    with _active_lock:
        _active[:] = [pair for pair in _active if pair[1] is not notifier]
