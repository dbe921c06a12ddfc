"""Whether a bus may be used, why not, and its end: in order, complete, and only once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from canbroker.bus import lifetime
from canbroker.errors import CanOperationError
from canbroker.system import locks
from canbroker.system.locks import Rank
from canbroker.system.undisturbed import to_the_end, undisturbed
from canbroker.system.wake import Wake
from canbroker.transport.sockets import SharedContext

_NEVER_OPENED: Final = "the bus was never opened"
_FORKED: Final = "the bus belongs to the process that opened it, not to its forked child"

_logger = logging.getLogger("canbroker.bus")


class OpenPart(Protocol):
    """Something that a bus has open and that its threads use."""

    def mine(self) -> bool:
        """Whether this thread is using it. If so, it is in a signal handler now."""

    def wake_up(self) -> None:
        """The bus was closed: wakes the threads that wait here, to look. Any thread."""

    def close(self) -> None:
        """Closes it when no thread uses it any more. Idempotent."""

    def forked(self) -> None:
        """[forked child] The sockets are the parent's: nothing may touch them."""


_P = TypeVar("_P", bound=OpenPart)


class Life:
    """The life of one bus. Any thread.

    As a :class:`contextlib.ExitStack` it keeps what is to be done at the end, and does that in
    reverse order. It exists before anything is open, so :meth:`end` undoes an opening wherever
    an exception has ended it. ``closed`` says why the bus cannot be used; ``None`` while it can.
    """

    _ended = True  # until __init__ has returned

    def __init__(self, label: object) -> None:
        """``label``: the user's name for the channel. Opens nothing."""
        self.closed: str | None = _NEVER_OPENED
        self.context = SharedContext()
        self._label = label
        self._lock = locks.make(Rank.LIFE)
        self._ending = locks.make(Rank.END)
        self._parts: list[OpenPart] = []
        self._ends: list[Callable[[], object]] = []
        self._wake: Wake | None = None
        self._flush: Callable[[], object] | None = None  # waits for what was sent
        self._unfinished = False
        self._finisher: int | None = None  # thread
        self._ended = False

    def __del__(self) -> None:
        if not self._ended and self._ends:
            # The finalizer of the bus was interrupted.
            lifetime.end_later(self.end_forgotten)

    # ------------------------------------------------------------------------------- beginning

    def at_end(self, job: Callable[[], object]) -> None:
        """Has ``job`` called at the end, the last one first, all on one thread."""
        self._ends.append(job)

    def keep(self, part: _P) -> _P:
        """Has a part woken when the bus is closed, and closed at the end."""
        with self._lock:
            self._parts.append(part)
            self._ends.append(part.close)
            ended = self._ended
        if ended:  # by another thread, or a signal handler
            part.close()
        return part

    def begin(self, flush: Callable[[], object]) -> None:
        """The bus may be used from now on. ``flush`` waits for what was sent, at its end."""
        self._flush = flush
        self.closed = None

    # ------------------------------------------------------------------------------------- use

    def check_open(self) -> None:
        """:raises CanOperationError: it is closed."""
        if self.closed:
            raise CanOperationError(f"{self.closed} ({self._label!r})")

    def closing(self) -> Wake | None:
        """Is set when the bus is closed, for threads that wait for something else.

        ``None`` if no descriptor is left for it. Those threads have to look now and then.
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
        """Ends its use, and wakes waiting threads; :meth:`finish` does the rest.

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

        A signal handler that has interrupted a call of its own thread cannot do that, as the
        interrupted call uses the sockets. The next use, or the finalizer, does it then.

        :raises CanOperationError: a frame was not sent.
        :raises CanTimeoutError: frames were still on their way after 10 s.
        """
        if not self._unfinished:
            return
        me = threading.get_ident()
        if self._finisher not in {None, me} or self._in_use():
            return
        try:
            self._finisher = me
            if self._flush is not None:
                self._flush()
        finally:
            self.end()

    def end(self) -> None:
        """Closes everything, whatever state it is in. Idempotent.

        If a signal handler raises in here once, everything is closed all the same.
        """
        to_the_end(self._end)

    def end_forgotten(self) -> None:
        """As :meth:`end`, for a bus that nobody can use any more, even if a thread began to."""
        self._finisher = None
        self.end()

    @property
    def over(self) -> bool:
        """Whether everything is closed."""
        return self._ended

    def forked(self) -> None:
        """[forked child] Everything is the parent's: touches nothing; use raises from now on."""
        self.closed = _FORKED
        self._unfinished = False
        self._ended = True
        self._lock = locks.make(Rank.LIFE)
        self._ending = locks.make(Rank.END)
        for part in self._parts:
            part.forked()

    def _in_use(self) -> bool:
        return any(part.mine() for part in self._parts)

    def _end(self) -> None:
        if self._ended or self._in_use():
            return
        if self._finisher not in {None, threading.get_ident()}:
            return  # another thread ends it, and waits for what was sent
        undisturbed(self._close_all)

    def _close_all(self) -> None:
        self.close()
        with self._ending:
            if self._ended:
                return
            self._unfinished = False
            for job in reversed(self._ends):
                try:
                    job()
                except Exception:  # the others are to be done all the same
                    _logger.exception("bus on channel %r was not closed in order", self._label)
            self.context.close()
            with self._lock:
                self._ended = True
                if self._wake is not None:
                    self._wake.close()
