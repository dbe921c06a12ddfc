"""The broker's runtime directory while it serves: others may remove its files."""

from __future__ import annotations

import logging
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime

#: How often the broker checks whether its lock file is still there.
_LOOK_NS: Final = clock.SECOND

#: The broker tries for this long to get its lock back: a client that checks whether a broker runs
#: has the lock for a moment, and a client that starts a broker keeps it until then.
_PATIENCE_NS: Final = 2 * clock.SECOND

_TOUCH_NS: Final = 3_600 * clock.SECOND

_logger = logging.getLogger(__name__)


class Premises:
    """Keeps the directory and its lock file. Sockets keep their files themselves."""

    def __init__(self, runtime: Runtime, lock: BrokerLock) -> None:
        self._runtime = runtime
        self._lock = lock
        self._look_at = clock.monotonic_ns() + _LOOK_NS
        self._touch_at = clock.monotonic_ns() + _TOUCH_NS
        self._locked_out_ns: int | None = None  # since when we have no lock

    def step(self, now_ns: int) -> bool:
        """Does what is due; returns whether the lock file was gone and is there again.

        :raises CanInitializationError: another broker has taken the directory, or it cannot be
            made.
        """
        if now_ns < self._look_at:
            return False
        self._look_at = now_ns + _LOOK_NS
        if self._lock.is_in_place:
            if now_ns >= self._touch_at:
                self._touch_at = now_ns + _TOUCH_NS
                self._runtime.touch()
            return False
        error = CanInitializationError(f"another broker has taken {self._runtime.directory}")
        try:
            self._runtime.prepare()
            if self._lock.renew():
                _logger.warning("%s was removed; it is there again", self._runtime.lock_path)
                self._locked_out_ns = None
                return True
        except (
            CanInitializationError
        ) as problem:  # whoever removes the directory may not have finished
            error = problem
        if self._locked_out_ns is None:
            self._locked_out_ns = now_ns
        if now_ns - self._locked_out_ns >= _PATIENCE_NS:
            raise error
        return False
