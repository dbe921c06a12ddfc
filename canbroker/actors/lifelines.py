"""What ends an actor: the broker, by its end of a pipe, or a signal."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from canbroker.actors.specs import MAX_TEXT
from canbroker.system.descriptors import wait_readable
from canbroker.system.processes import Process, start_of
from canbroker.system.service import Exit
from canbroker.system.wake import Wake
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


class BrokerLifeline(Protocol):
    """Becomes readable when the broker has closed its end, or is gone.

    From then on the process has :data:`_LEAVE_S` to leave by itself: if it hangs, in a driver that
    opens an adapter, say, nobody is left to kill it.
    """

    def fileno(self) -> int: ...

    def last_words(self) -> str:
        """Why the broker ends us for good; empty if it does not say. Call it once."""


class InheritedLifeline:
    """A lifeline that is a pipe from the broker, our parent."""

    def __init__(self, descriptor: int, broker: int) -> None:
        """``broker``: the process id of the broker, our parent."""
        self._descriptor = descriptor
        self._broker = broker
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def fileno(self) -> int:
        return self._descriptor

    def last_words(self) -> str:
        is_readable = select.select([self._descriptor], [], [], 0)[0]
        return os.read(self._descriptor, MAX_TEXT).decode(errors="replace") if is_readable else ""

    def _watch(self) -> None:
        wait_readable(self._descriptor)
        _end_without(lambda: os.getppid() == self._broker)


class StandardInputLifeline:
    """A lifeline that was the standard input. A thread reads it, as Windows cannot wait for pipes
    and sockets together."""

    def __init__(self, descriptor: int, begun: bytes, broker: int) -> None:
        """
        :param begun: what was read of it already.
        :param broker: its process id. Elsewhere than on Linux it need not be our parent: the
            program of a virtual environment may be in between.
        """
        self._descriptor = descriptor
        self._words = begun
        self._ended = Wake()
        self._broker = Process(broker, start_of(broker) or 0)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def fileno(self) -> int:
        return self._ended.fileno()

    def last_words(self) -> str:
        return self._words[:MAX_TEXT].decode(errors="replace")

    def _watch(self) -> None:
        try:
            while data := os.read(self._descriptor, MAX_TEXT):
                self._words += data
        except OSError as error:  # Windows tells so that the broker is gone
            _logger.debug("the lifeline ended: %s", error)
        self._ended.set()
        _end_without(lambda: self._broker.runs)


def _end_without(broker_runs: Callable[[], bool]) -> None:
    """Gives the process time to leave, then ends it as soon as there is no broker. A broker that
    runs kills us itself when it must."""
    time.sleep(_LEAVE_S)
    while broker_runs():
        time.sleep(_LOOK_S)
    _logger.error("the broker is gone, and the actor did not end: ending the process")
    os._exit(Exit.CRASHED)
