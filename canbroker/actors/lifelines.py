"""What ends an actor: the broker, by its end of a pipe, or a signal."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from canbroker.actors.specs import MAX_TEXT
from canbroker.system.service import Exit
from canbroker.transport.waiter import Descriptor

#: An actor whose broker is gone has this long to leave; the broker's successor waits for it.
_LEAVE_S: Final = 1.5
_LOOK_S: Final = 0.1

_logger = logging.getLogger(__name__)


class Lifelines(NamedTuple):
    """What ends an actor.

    It ends when one of ``descriptors`` becomes readable. ``last_words`` then returns why the broker
    ends it for good, or an empty string.
    """

    descriptors: tuple[Descriptor, ...]
    last_words: Callable[[], str] = str


class BrokerLifeline:
    """Becomes readable when the broker has closed its end, or is gone.

    From then on the process has :data:`_LEAVE_S` to leave by itself: if it hangs, in a driver that
    opens an adapter, say, nobody is left to kill it.
    """

    def __init__(self, descriptor: int, broker: int) -> None:
        """``broker``: the process id of the broker, our parent."""
        self._descriptor = descriptor
        self._broker = broker
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def fileno(self) -> int:
        return self._descriptor

    def last_words(self) -> str:
        """Why the broker ends us for good; empty if it does not say. Call it once."""
        is_readable = select.select([self._descriptor], [], [], 0)[0]
        return os.read(self._descriptor, MAX_TEXT).decode(errors="replace") if is_readable else ""

    def _watch(self) -> None:
        ended = select.poll()
        ended.register(self._descriptor)
        ended.poll()
        time.sleep(_LEAVE_S)
        while os.getppid() == self._broker:  # a broker that runs kills us itself when it must
            time.sleep(_LOOK_S)
        _logger.error("the broker is gone, and the actor did not end: ending the process")
        os._exit(Exit.CRASHED)
