"""Process entry of actors: specification in, reports out, signals, logging, lifeline, exit codes.

The parent passes three descriptors on: a file with the specification; the lifeline, a pipe whose
end of file, when the parent stops the child or dies, is the order to leave, maybe after a word why;
and the pipe of reports, lines of JSON: ready or the reason why not, then that the child lives.
Standard output is the parent's standard error, for whatever prints there.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from canbroker.actors.specs import MAX_TEXT, Alive, ChannelSpec, Ready, Spec
from canbroker.errors import CanError
from canbroker.system.descriptors import open_standard, raise_limit
from canbroker.system.priority import raise_priority
from canbroker.system.service import Exit, Terminated, set_up_logging
from canbroker.transport.waiter import Descriptor
from canbroker.wire import control

#: Objects that may be garbage before it is looked for. In a queue of frames there are as many that
#: are none, which Python would go through every 700.
_GARBAGE: Final = 20_000

#: A thread of an actor that has something to do waits for the other one this long at most.
_SWITCH_S: Final = 0.0005

#: An actor whose broker is gone has this long to leave, as a successor of that waits for it.
_LEAVE_S: Final = 1.5
_LOOK_S: Final = 0.1

_logger = logging.getLogger(__name__)


class Reports:
    """The child's end of the pipe of reports. Any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def send(self, report: Ready | Alive) -> None:
        """Sends a report to a parent that is there; the lifeline tells when it is not."""
        try:
            os.write(self._descriptor, msgspec.json.encode(report) + b"\n")
        except BlockingIOError:
            _logger.warning("the broker does not read what its actors report")
        except BrokenPipeError:
            _logger.warning("the broker is gone")


class Lifeline:
    """Becomes readable when the parent has closed its end, or is gone.

    From then on the process has :data:`_LEAVE_S` to leave by itself: nobody is there who would
    kill it if it hangs, in a driver that opens an adapter, say, or in a thread of one.
    """

    def __init__(self, descriptor: int, parent: int) -> None:
        self._descriptor = descriptor
        self._parent = parent
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def fileno(self) -> int:
        return self._descriptor

    def last_words(self) -> str:
        """Why the parent wants us to leave for good; empty if it does not say so. Call it once."""
        is_readable = select.select([self._descriptor], [], [], 0)[0]
        return os.read(self._descriptor, MAX_TEXT).decode(errors="replace") if is_readable else ""

    def _watch(self) -> None:
        ended = select.poll()
        ended.register(self._descriptor)
        ended.poll()
        time.sleep(_LEAVE_S)
        while os.getppid() == self._parent:  # which kills us when it thinks that it is time
            time.sleep(_LOOK_S)
        _logger.error("the broker is gone, and the actor did not end: ending the process")
        os._exit(Exit.CRASHED)


def main(arguments: Sequence[str]) -> int:
    """Runs one actor until its lifeline ends; returns the exit code.

    :param arguments: a name for the log; the number of the parent; descriptors of specification,
        lifeline and reports.
    """
    open_standard()
    # A terminal's signals go to the whole group; the broker decides when its actors leave.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    name, *numbers = arguments
    parent, specification, lifeline, reporting = map(int, numbers)
    for descriptor in (specification, lifeline, reporting):  # none is for a driver's children
        os.set_inheritable(descriptor, False)
    broker = Lifeline(lifeline, parent)
    lifelines = (broker, Terminated(signal.SIGTERM))
    reports = Reports(reporting)
    with open(specification, "rb") as file:  # noqa: PTH123 - a descriptor
        spec = _spec_decoder.decode(file.read())
    set_up_logging(spec.log_level, name)
    raise_limit()
    raise_priority()
    try:
        run = _make(spec, broker)
    except CanError as error:
        reports.send(Ready(str(error)[:MAX_TEXT], control.error_code(error)))
        return Exit.REFUSED
    # What is loaded stays: it need not be looked through for garbage again and again.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    sys.setswitchinterval(_SWITCH_S)
    reports.send(Ready())
    run(lifelines, lambda: reports.send(Alive()))
    return Exit.OK


def _end(code: int) -> int:
    """``code``, if the end of the main thread ends the process; else ends it now.

    The interpreter waits for threads, and the driver that has started one may never end it.
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


_Run = Callable[[Sequence[Descriptor], Callable[[], None]], None]


def _make(spec: Spec, broker: Lifeline) -> _Run:
    """Makes the actor; returns what runs it, given what ends it and how to say that it lives.

    :raises CanError: it cannot be made.
    """
    # Imported here: neither actor needs what the other one is made of, nor does the broker.
    if isinstance(spec, ChannelSpec):
        from canbroker.actors.channel.actor import ChannelActor  # noqa: PLC0415

        channel = ChannelActor(spec)
        # Its state stream says that it lives.
        return lambda lifelines, _: channel.run(*lifelines, last_words=broker.last_words)
    from canbroker.actors.scheduler.actor import SchedulerActor  # noqa: PLC0415

    scheduler = SchedulerActor(spec)
    return lambda lifelines, beat: scheduler.run(*lifelines, beat=beat)


_spec_decoder = msgspec.json.Decoder(Spec)


if __name__ == "__main__":
    code: int = Exit.CRASHED
    try:
        code = main(sys.argv[1:])
    except BaseException:
        _logger.exception("the actor crashed")
    finally:
        sys.exit(_end(code))
