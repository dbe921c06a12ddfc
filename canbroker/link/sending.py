"""The sending half of a bus: any number of threads, which take turns at the transmitter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from canbroker import clock
from canbroker.errors import CanTimeoutError
from canbroker.frame import Frame
from canbroker.link.reception import Reception
from canbroker.link.transmitter import Transmitter


class Sending:
    """Sends for any number of threads. ``lock`` is for one who ends it all."""

    def __init__(
        self,
        transmitter: Transmitter,
        reception: Reception,
        *,
        check_open: Callable[[], None],
        finish: Callable[[], None],
    ) -> None:
        """``check_open`` raises when the bus is closed; ``finish`` ends it if it was meanwhile."""
        self.lock = threading.Lock()
        self._sender: int | None = None  # thread that has the lock
        self._transmitter = transmitter
        self._reception = reception
        self._check_open = check_open
        self._finish = finish

    def mine(self) -> bool:
        """Whether this thread is sending: it is in a signal handler, then."""
        return self._sender == threading.get_ident()

    def send(self, frames: Sequence[Frame], deadline: int | None, *, taken: bool) -> None:
        """As :meth:`Transmitter.send`."""
        with self._turn(deadline):
            self._reception.follow()
            self._transmitter.send(frames, deadline, taken=taken)

    def flush(self, deadline: int | None) -> None:
        """As :meth:`Transmitter.flush`."""
        with self._turn(deadline):
            self._transmitter.flush(deadline)

    def discard(self, ask: Callable[[int], int]) -> int:
        """What ``ask`` returns, given the last request's token; 0 if nothing is on its way."""
        with self._turn(None):
            return ask(self._transmitter.token) if self._transmitter.pending() else 0

    @contextmanager
    def _turn(self, deadline: int | None) -> Iterator[None]:
        self._check_open()
        left = clock.remaining_ns(deadline)
        if not self.lock.acquire(timeout=-1 if left is None else left / clock.SECOND):
            raise CanTimeoutError("another thread is sending")
        try:
            self._check_open()
            self._sender = threading.get_ident()
            yield
        finally:
            self._sender = None
            self.lock.release()
            self._finish()
