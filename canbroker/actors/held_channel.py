"""A channel that an actor reads: opened in a thread, again if it ends, and held while we are away.

A channel holds our route while no process of ours is there: its frames are kept in the ring and
numbered, so that our successor asks for what it has missed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from canbroker.bus.tapping import Tappable, TappedBus
from canbroker.errors import CanError, CanOperationError
from canbroker.system import clock
from canbroker.wire.replay import Held

#: A channel that could not be opened is tried again after this time.
RETRY_NS: Final = clock.SECOND

_logger = logging.getLogger(__name__)


class HeldChannel:
    """One channel. ``tapped`` while it is open; ``problem``: why it is not."""

    def __init__(
        self,
        name: str,
        holder: str,
        seconds: float,
        open_bus: Callable[[], Tappable],
        purpose: str,
    ) -> None:
        """
        :param holder: what we are called as the holder of its route.
        :param seconds: how long it holds that when we are gone.
        :param purpose: what cannot be done while it is not open, for the log: ``recorded``.
        """
        self.name = name
        self.tapped: TappedBus | None = None
        self.problem = ""
        self._holder = holder
        self._seconds = seconds
        self._open_bus = open_bus
        self._purpose = purpose
        self._opening: threading.Thread | None = None
        self._result: tuple[TappedBus, Held] | CanError = CanError("")
        self._retry_at = 0

    def open(self, epoch: int | None) -> None:
        """Begins to open it, in a thread, as an adapter may take seconds.

        :param epoch: of the last frame that we know of; ``None``: the channel's own.
        """
        thread = threading.Thread(
            target=self._open, args=[epoch], name=f"open {self.name}", daemon=True
        )
        self._opening = thread
        thread.start()

    def opened(self, now_ns: int, epoch: int | None) -> Held | None:
        """How it is held, if it was just opened. If it cannot be opened, it is tried again.

        ``epoch``: as of :meth:`open`.
        """
        if self._opening is None:
            if self.tapped is None and now_ns >= self._retry_at:
                self.open(epoch)
            return None
        if self._opening.is_alive():
            return None
        self._opening = None
        result = self._result
        if isinstance(result, CanError):
            self._retry_at = now_ns + RETRY_NS
            if self.problem != str(result):
                self.problem = str(result)
                _logger.warning("channel %r cannot be %s: %s", self.name, self._purpose, result)
            return None
        self.tapped, held = result
        self.problem = ""
        return held

    @property
    def is_tried(self) -> bool:
        """Whether it is open, or could not be opened."""
        return self.tapped is not None or bool(self.problem)

    def end(self, now_ns: int) -> None:
        """Closes it because it has ended; it is opened again."""
        if self.tapped is not None:
            self.tapped.close()
            self.tapped = None
            self._retry_at = now_ns + RETRY_NS

    def _open(self, epoch: int | None) -> None:
        try:
            bus = self._open_bus()
        except (CanError, ValueError) as error:
            self._result = error if isinstance(error, CanError) else CanOperationError(str(error))
            return
        tapped = TappedBus(self.name, bus)
        try:
            known = tapped.place.epoch if epoch is None else epoch
            self._result = tapped, tapped.hold(self._holder, self._seconds, known)
        except CanError as error:
            tapped.close()
            self._result = error
