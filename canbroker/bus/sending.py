"""The sending half of a bus: any number of threads use the transmitter in turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from canbroker.bus.life import Life
from canbroker.bus.receiving import Reception
from canbroker.bus.transmitter import Transmitter
from canbroker.bus.turns import Turn
from canbroker.bus.unanswered import Failed, Unanswered
from canbroker.errors import CanTimeoutError
from canbroker.model.frame import Frame
from canbroker.system import clock
from canbroker.wire.transmit import CREDIT, MAX_FRAMES

#: Another thread may be sending on the same bus, and is done in a moment.
_OFFER_NS: Final = 10 * clock.MILLISECOND

#: A thread that waits for answers lets others send this often.
_SLICE_NS: Final = 10 * clock.MILLISECOND

_T = TypeVar("_T")

#: Frames of one request, and when they are due on our monotonic clock; 0 is at once.
Timed: TypeAlias = tuple[Sequence[Frame], int]


class Sending:
    """Sends for any number of threads, one at a time."""

    def __init__(self, transmitter: Transmitter, reception: Reception, life: Life) -> None:
        self.transmitter = transmitter
        self._turn = Turn("sending")
        self._reception = reception
        self._check_open = life.check_open
        self._finish = life.finish  # ends the bus if it was closed during a call

    def mine(self) -> bool:
        """Whether this thread is sending."""
        return self._turn.mine()

    def wake_up(self) -> None:
        """Makes waiting threads look whether the bus is closed."""
        self.transmitter.closing = True

    def close(self) -> None:
        """Closes the socket. Waiting threads were woken before."""
        self._turn.run(None, self.transmitter.close)

    def forked(self) -> None:
        """[forked child] Does nothing: a closed bus does not use the socket."""

    def send(
        self,
        frames: Sequence[Frame],
        deadline: int | None,
        *,
        taken: bool,
    ) -> None:
        """As :meth:`Transmitter.send`."""
        self._in_turn(deadline, functools.partial(self._send, frames, deadline, taken))

    def send_timed(self, requests: Sequence[Timed]) -> None:
        """As :meth:`Transmitter.send` for each of them, in one turn; waits for room."""
        self._in_turn(None, functools.partial(self._send_timed, requests))

    def offer(self, frames: Sequence[Frame], expires_ns: int, failed: Failed) -> Unanswered | None:
        """As :meth:`Transmitter.offer`. ``None``, too, if other threads send all the time."""
        if self._turn.taken() and self.transmitter.unanswered >= CREDIT:
            return None  # they wait for room, perhaps for long
        deadline = clock.monotonic_ns() + _OFFER_NS
        try:
            return self._in_turn(
                deadline, functools.partial(self._offer, frames, expires_ns, failed)
            )
        except CanTimeoutError:
            return None

    def send_many(self, frames: Sequence[Frame], deadline: int | None, *, taken: bool) -> None:
        """As :meth:`send`, for any number of frames.

        :raises CanTimeoutError: as :meth:`send`; the text says how many frames were sent before.
        """
        for start in range(0, len(frames), MAX_FRAMES):
            try:
                self.send(frames[start : start + MAX_FRAMES], deadline, taken=taken)
            except CanTimeoutError as error:
                before = f"the {start} messages before it are under way"
                raise CanTimeoutError(f"{error}; {before}") from error

    def wait_until_answered(self, request: Unanswered, deadline: int) -> None:
        """As :meth:`Transmitter.wait_until_answered`, while others may send."""
        while not request.answered and clock.remaining_ns(deadline):
            until = min(deadline, clock.monotonic_ns() + _SLICE_NS)
            try:
                self._in_turn(
                    deadline, functools.partial(self._wait_until_answered, request, until)
                )
            except CanTimeoutError:
                return

    def pending(self) -> int:
        """As :meth:`Transmitter.pending`."""
        return self._in_turn(None, self._pending)

    def flush(self, deadline: int | None) -> None:
        """As :meth:`Transmitter.flush`."""
        self._in_turn(deadline, functools.partial(self._flush, deadline))

    def finish(self, timeout: float) -> None:
        """Waits until the driver has taken what was sent, while the bus is being closed.

        :raises CanTimeoutError, CanOperationError: as :meth:`Transmitter.flush`.
        """
        deadline = clock.deadline_after(timeout)
        job = functools.partial(self.transmitter.flush, deadline, closing=True)
        self._turn.run(None, job)

    def discard(self, ask: Callable[[int], int]) -> int:
        """Calls ``ask`` with the token of the last request; 0 if no frame is on its way."""
        return self._in_turn(None, functools.partial(self._discard, ask))

    def _in_turn(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        self._check_open()
        try:
            return self._turn.run(deadline, job)
        finally:
            self._finish()

    def _send(self, frames: Sequence[Frame], deadline: int | None, taken: bool) -> None:
        self._check_open()
        self._reception.follow()
        self.transmitter.send(frames, deadline, taken=taken)

    def _send_timed(self, requests: Sequence[Timed]) -> None:
        self._check_open()
        self._reception.follow()
        for frames, due_ns in requests:
            self.transmitter.send(frames, None, taken=False, due_ns=due_ns)

    def _pending(self) -> int:
        self._check_open()
        self._reception.follow()
        return self.transmitter.pending()

    def _offer(self, frames: Sequence[Frame], expires_ns: int, failed: Failed) -> Unanswered | None:
        self._check_open()
        self._reception.follow()
        return self.transmitter.offer(frames, expires_ns, failed)

    def _wait_until_answered(self, request: Unanswered, until: int) -> None:
        self._check_open()
        self.transmitter.wait_until_answered(request, until)

    def _flush(self, deadline: int | None) -> None:
        self._check_open()
        self.transmitter.flush(deadline)

    def _discard(self, ask: Callable[[int], int]) -> int:
        self._check_open()
        return ask(self.transmitter.token) if self.transmitter.pending() else 0
