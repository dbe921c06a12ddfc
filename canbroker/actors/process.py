"""Process entry of actors: specification in, reports out, signals, logging, lifeline, exit codes.

The broker passes three things on: a specification; the lifeline, a pipe that the broker closes to
end the actor (or that ends with the broker), maybe after a word why; and the pipe of reports, lines
of JSON: that the actor is ready, or why it is not, then that it lives. What drivers print goes to
the broker's standard error.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Union

import msgspec

from canbroker.actors.birth import born
from canbroker.actors.kinds import KINDS, Actor, Kind
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.specs import MAX_TEXT, ActorSpec, Alive, Ready
from canbroker.errors import CanError
from canbroker.system.descriptors import is_closed_pipe, open_standard, raise_limit
from canbroker.system.priority import raise_priority
from canbroker.system.service import Exit, Terminated, ignore_terminal, set_up_logging
from canbroker.wire import control

#: Objects that may be garbage before Python looks for it. A queue of frames has as many that are
#: not, and Python would look through them after every 700.
_GARBAGE: Final = 20_000

#: What most actors have to report, beside that they live.
_NOTHING: Final[Mapping[str, Any]] = {}

#: A thread of an actor that has something to do waits for the other one this long at most.
_SWITCH_S: Final = 0.0005

_logger = logging.getLogger(__name__)


class Reports:
    """The actor's end of the pipe of reports. Any thread. It had better not wait."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, report: Ready | Alive) -> None:
        """Sends a report to the broker. If that is gone, the lifeline tells."""
        try:
            os.write(self._descriptor, msgspec.json.encode(report) + b"\n")
        except BlockingIOError:
            _logger.warning("the broker does not read what its actors report")
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            _logger.warning("the broker is gone")


def main(arguments: Sequence[str]) -> int:
    """Runs one actor until its lifeline ends; returns the exit code.

    :param arguments: as of :func:`canbroker.actors.birth.born`.
    """
    open_standard()
    # A terminal's signals go to the whole group; the broker decides when its actors leave.
    ignore_terminal()
    birth = born(arguments)
    broker = birth.lifeline
    lifelines = Lifelines((broker, Terminated(signal.SIGTERM)), broker.last_words)
    reports = Reports(birth.reporting)
    kind, spec = _decoded(birth.specification)
    set_up_logging(spec.log_level, birth.name)
    raise_limit()
    raise_priority()
    try:
        actor = kind.make(spec)
    except CanError as error:
        reports.send(Ready(str(error)[:MAX_TEXT], control.error_code(error)))
        return Exit.REFUSED
    _run(actor, lifelines, reports)
    return Exit.OK


def _run(actor: Actor, lifelines: Lifelines, reports: Reports) -> None:
    # What is loaded stays: it need not be looked through for garbage again and again.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    sys.setswitchinterval(_SWITCH_S)
    reports.send(Ready())
    actor.run(lifelines, lambda report=_NOTHING: reports.send(Alive(dict(report))))


def _decoded(content: bytes) -> tuple[Kind, ActorSpec]:
    """The kind of actor that a specification is for, and the specification."""
    specs: Any = Union[tuple(kind.spec for kind in KINDS.values())]  # noqa: UP007 - made from a table
    spec = msgspec.json.decode(content, type=specs)
    return next(kind for kind in KINDS.values() if type(spec) is kind.spec), spec


def _end(code: int) -> int:
    """``code``, if the end of the main thread ends the process; else ends it now.

    The interpreter waits for threads, and a driver may never end one that it has started.
    """
    left = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon
    ]
    if left:
        _logger.warning("ending with these threads left: %s", ", ".join(left))
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    code: int = Exit.CRASHED
    try:
        code = main(sys.argv[1:])
    except BaseException:
        _logger.exception("the actor crashed")
    finally:
        sys.exit(_end(code))
