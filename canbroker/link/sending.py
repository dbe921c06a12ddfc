"""The sending half of a bus: any number of threads, which take turns at the transmitter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from canbroker.frame import Frame
from canbroker.link.reception import Reception
from canbroker.link.transmitter import Failed, Transmitter
from canbroker.link.turns import Turn

_T = TypeVar("_T")


class Sending:
    """Sends for any number of threads. ``turn`` is for who ends it all."""

    def __init__(
        self,
        transmitter: Transmitter,
        reception: Reception,
        *,
        check_open: Callable[[], None],
        finish: Callable[[], None],
    ) -> None:
        """``check_open`` raises when the bus is closed; ``finish`` ends it if it was meanwhile."""
        self.turn = Turn("sending")
        self._transmitter = transmitter
        self._reception = reception
        self._check_open = check_open
        self._finish = finish

    def send(
        self,
        frames: Sequence[Frame],
        deadline: int | None,
        *,
        taken: bool,
        failed: Failed | None = None,
    ) -> None:
        """As :meth:`Transmitter.send`."""
        self._in_turn(deadline, functools.partial(self._send, frames, deadline, taken, failed))

    def flush(self, deadline: int | None) -> None:
        """As :meth:`Transmitter.flush`."""
        self._in_turn(deadline, functools.partial(self._flush, deadline))

    def discard(self, ask: Callable[[int], int]) -> int:
        """What ``ask`` returns, given the last request's token; 0 if nothing is on its way."""
        return self._in_turn(None, functools.partial(self._discard, ask))

    def _in_turn(self, deadline: int | None, job: Callable[[], _T]) -> _T:
        self._check_open()
        try:
            return self.turn.take(deadline, job)
        finally:
            self._finish()

    def _send(
        self, frames: Sequence[Frame], deadline: int | None, taken: bool, failed: Failed | None
    ) -> None:
        self._check_open()
        self._reception.follow()
        self._transmitter.send(frames, deadline, taken=taken, failed=failed)

    def _flush(self, deadline: int | None) -> None:
        self._check_open()
        self._transmitter.flush(deadline)

    def _discard(self, ask: Callable[[int], int]) -> int:
        self._check_open()
        return ask(self._transmitter.token) if self._transmitter.pending() else 0
