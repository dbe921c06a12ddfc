"""Whether a bus may be used, why not, and its end: in order, whole, and only once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from canbroker.bus import lifetime
from canbroker.bus.line import Line, line_to
from canbroker.errors import CanError, CanOperationError
from canbroker.system import handles
from canbroker.system.undisturbed import undisturbed
from canbroker.system.wake import Wake
from canbroker.transport.address import Address
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control

#: A broker answers at once; one that is stopped or gone is not waited for.
_DETACH_S: Final = 0.5

_NEVER_OPENED: Final = "the bus was never opened"
_FORKED: Final = "the bus belongs to the process that opened it, not to its forked child"

_logger = logging.getLogger("canbroker.bus")


class Part(Protocol):
    """What a bus has open, as far as its end is concerned."""

    def mine(self) -> bool:
        """Whether this thread is using it: it is in a signal handler, then."""

    def wake_up(self) -> None:
        """The bus was closed: whoever waits shall look. Any thread."""

    def close(self) -> None:
        """Closes it, when nobody uses it any more. Idempotent."""

    def forked(self) -> None:
        """[forked child] Its sockets are the parent's: nothing may touch them."""


_P = TypeVar("_P", bound=Part)


class Life:
    """The life of one bus. Any thread.

    It exists before anything is open, and all that is opened belongs to it: whatever an opening is
    ended by, :meth:`end` finds it. ``closed`` says why the bus cannot be used (any more); ``None``
    while it can.
    """

    _ended = True  # as long as it is not made

    def __init__(self, label: object, client_id: str) -> None:
        """``label``: what the user calls the channel. Opens nothing."""
        self.closed: str | None = _NEVER_OPENED
        self.context = SharedContext()
        self._label = label
        self._client_id = client_id
        self._lock = threading.RLock()  # a signal handler may interrupt a shutdown
        self._ending = threading.RLock()  # held by who closes all, which takes its time
        self._parts: list[Part] = []
        self._line: Line | None = None
        self._attached = False  # the broker knows us, perhaps
        self._wake: Wake | None = None
        self._flush: Callable[[], None] = _nothing
        self._leave: Callable[[], None] = _nothing
        self._unfinished = False
        self._finisher: int | None = None  # thread
        self._ended = False

    def __del__(self) -> None:
        if not self._ended and (self._parts or self._line is not None):
            # The finalizer of the bus has been interrupted.
            lifetime.end_later(self.end_forgotten)

    # ------------------------------------------------------------------------------- beginning

    def connect_to(self, address: Address) -> None:
        """What is needed to leave the broker, before it is told of us.

        :raises CanError: there are no descriptors left.
        """
        self._line = line_to(address, self.context)

    def attaching(self, attached: bool) -> None:
        """Whether the broker may know us from now on."""
        self._attached = attached

    def keep(self, part: _P) -> _P:
        """Has a part closed at the end, the last one first."""
        with self._lock:
            self._parts.append(part)
            if self._ended:  # by another thread, or a signal handler
                part.close()
        return part

    def begin(self) -> None:
        """The bus may be used from now on."""
        self.closed = None

    def on_leaving(self, leave: Callable[[], None]) -> None:
        """``leave`` tells the channel, before anything is closed."""
        self._leave = leave

    def on_finishing(self, flush: Callable[[], None]) -> None:
        """``flush`` waits for what was sent."""
        self._flush = flush

    # ------------------------------------------------------------------------------------- use

    def check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        if self.closed:
            raise CanOperationError(f"{self.closed} ({self._label!r})")

    def closing(self) -> Wake | None:
        """Is set when the bus is closed; for those who wait for something else.

        ``None``: there is no descriptor left for it. They have to look now and then.
        """
        with self._lock:
            if self._wake is None:
                try:
                    wake = Wake()
                except CanOperationError as error:
                    _logger.debug("bus on channel %r: %s", self._label, error)
                    return None
                if self.closed:
                    wake.set()
                self._wake = wake
            return self._wake

    # ------------------------------------------------------------------------------------- end

    def close(self, reason: str = "the bus is shut down") -> bool:
        """Lets nobody use it any more, and wakes who waits; :meth:`finish` does the rest.

        Returns whether it was open.
        """
        with self._lock:
            was_open = self.closed is None
            if was_open:
                self._unfinished = True
                self.closed = reason
            if self._wake is not None:
                self._wake.set()
            for part in self._parts:
                part.wake_up()
            return was_open

    def finish(self) -> None:
        """Ends a bus that was closed, when the driver has taken what was sent.

        Called from a signal handler that has interrupted a call of the same thread, it leaves
        that to whoever uses or drops the bus next: that call holds the sockets.

        :raises CanOperationError: a frame was not sent.
        :raises CanTimeoutError: frames were still on their way after 10 s.
        """
        me = threading.get_ident()
        if not self._unfinished or self._finisher not in {None, me} or self._in_use():
            return
        try:
            self._finisher = me
            self._flush()
        finally:
            self.end()

    def end(self) -> None:
        """Closes everything, whatever state it is in. Idempotent.

        A signal handler may raise in here once: everything is closed all the same.
        """
        try:
            self._end()
        finally:
            self._end()

    def end_forgotten(self) -> None:
        """As :meth:`end`, of a bus that nobody can use any more, whoever was about to end it."""
        self._finisher = None
        self.end()

    @property
    def over(self) -> bool:
        """Whether all is closed."""
        return self._ended

    def forked(self) -> None:
        """[forked child] All is the parent's: touch nothing, and say so when used."""
        self.closed = _FORKED
        self._unfinished = False
        self._ended = True
        self._lock = threading.RLock()
        self._ending = threading.RLock()
        for part in self._parts:
            part.forked()

    def _in_use(self) -> bool:
        return any(part.mine() for part in self._parts)

    def _end(self) -> None:
        if self._ended or self._in_use():
            return
        if self._finisher not in {None, threading.get_ident()}:
            return  # another thread is at it, and waits for what was sent
        if handles.has_interrupted():
            self._close_all()
        else:
            undisturbed(self._close_all)

    def _close_all(self) -> None:
        self.close()
        with self._ending:
            if self._ended:
                return
            self._unfinished = False
            for job in (self._leave, self._detach, *(p.close for p in reversed(self._parts))):
                try:
                    job()
                except Exception:  # what comes after it is to be closed all the same
                    _logger.exception("bus on channel %r was not closed in order", self._label)
            self.context.close()
            if self._line is not None:
                self._line.leave(self.context)
            with self._lock:
                self._ended = True
                if self._wake is not None:
                    self._wake.close()

    def _detach(self) -> None:
        """Tells the broker, so that it need not find out."""
        if self._line is None or not self._attached:
            return
        self._attached = False
        try:
            params = control.Detach(client_id=self._client_id)
            self._line.tell("detach", params, _DETACH_S)
        except CanError as error:
            _logger.debug("the broker did not take the leave of %r: %s", self._label, error)


def _nothing() -> None:
    """There is nothing to do yet."""
