"""Process entry of actors: specification in, reports out, signals, logging, lifeline, exit codes.

The parent passes three descriptors on: a file with the specification; the lifeline, a pipe whose
end of file, when the parent stops the child or dies, is the order to leave, maybe after a word why;
and the pipe of reports, lines of JSON: ready or the reason why not, then that the child lives.
Standard output is the parent's standard error, for whatever prints there.
"""

from __future__ import annotations

import enum
import gc
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from canbroker.actors.specs import ChannelSpec, Spec
from canbroker.descriptors import beyond_standard, open_standard, pipe, raise_limit
from canbroker.errors import CanError
from canbroker.fabric.sockets import Descriptor
from canbroker.priority import raise_priority
from canbroker.throttle import ForeignRecords
from canbroker.wake import Wake
from canbroker.wire import DECODE_ERRORS, control
from canbroker.wording import set_up_one_line

#: Objects that may be garbage before it is looked for. In a queue of frames there are as many that
#: are none, which Python would go through every 700.
_GARBAGE: Final = 20_000

#: A thread of an actor that has something to do waits for the other one this long at most.
_SWITCH_S: Final = 0.0005

#: An actor whose broker is gone has this long to leave, as a successor of that waits for it.
_LEAVE_S: Final = 1.5
_LOOK_S: Final = 0.1

#: Characters of the reason why an actor cannot start: a line fits the pipe at once, and is less
#: than the longest one that is read.
_MAX_TEXT: Final = 2048
_MAX_REPORT: Final = 16_384
_CHUNK: Final = 65_536
_QUOTED: Final = 200

_STDERR: Final = 2

_logger = logging.getLogger(__name__)


class Exit(enum.IntEnum):
    """What an exit code of a canbroker process means."""

    OK = 0
    CRASHED = 70  # a bug; the traceback is in the log (EX_SOFTWARE of sysexits.h)
    REFUSED = 78  # it could not start with this specification (EX_CONFIG)


class Ready(msgspec.Struct, tag="ready"):
    """The child's answer: ``error`` is empty when it serves, else the reason why it does not.

    ``code`` groups it as an error of the control protocol does.
    """

    error: str = ""
    code: str = "initialization"


class Alive(msgspec.Struct, tag="alive"):
    """The child still does its work."""


class ReportError(Exception):
    """A child reports what is not understood; the message quotes it."""


class Child:
    """A running actor process, seen from the broker. Watch :meth:`fileno` for its reports."""

    def __init__(self, name: str, spec: Spec) -> None:
        """Starts the process; returns at once. ``name`` shows in the list of processes.

        ``-P``: the user's working directory may hold a ``serial.py`` that is not pyserial.

        :raises OSError: no process, no descriptor or no memory is left.
        """
        ring = getattr(spec, "ring_descriptor", None)
        with ExitStack() as ours, ExitStack() as childs:
            specification = _written(msgspec.json.encode(spec))
            childs.callback(os.close, specification)
            lifeline, self._lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, self._lifeline)
            self._reports, reports = pipe()
            childs.callback(os.close, reports)
            ours.callback(os.close, self._reports)
            os.set_blocking(self._reports, False)
            descriptors = (specification, lifeline, reports)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "canbroker.process", name),
                    *map(str, (os.getpid(), *descriptors)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=descriptors if ring is None else (*descriptors, ring),
            )
            ours.pop_all()
        self.pid = self._process.pid
        self._unread = b""
        self._released = False

    def fileno(self) -> int:
        return self._reports

    def reports(self) -> list[Ready | Alive] | None:
        """What the child has reported since the last call; ``None``: it ends, or has ended.

        :raises ReportError: something else than a report.
        """
        try:
            data = os.read(self._reports, _CHUNK)
        except BlockingIOError:
            return []
        if not data and not self._unread:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        if not data or len(self._unread) > _MAX_REPORT:  # of an end amid a line there is no more
            lines, self._unread = [*lines, self._unread], b""
        return [_report(line) for line in lines]

    def release(self, last_words: str = "") -> None:
        """Tells the child to leave, by closing its lifeline.

        ``last_words``: why it ends for good; a broker that is killed leaves none.
        """
        if self._released:
            return
        self._released = True
        try:
            os.write(self._lifeline, last_words.encode()[:_MAX_TEXT])
        except BrokenPipeError:
            _logger.debug("actor process %d had left before", self.pid)
        finally:
            os.close(self._lifeline)

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        """The exit code, ``None`` while the child runs."""
        return self._process.poll()

    def close(self) -> None:
        """Closes the pipes of a child that has ended."""
        self.release()
        os.close(self._reports)


def _written(content: bytes) -> int:
    """A descriptor of a file without a name that has ``content``, to be read from its start."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("canbroker specification")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    descriptor = beyond_standard(descriptor)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _report(line: bytes) -> Ready | Alive:
    try:
        return _report_decoder.decode(line)
    except DECODE_ERRORS as error:
        said = line[:_QUOTED].decode(errors="replace")
        raise ReportError(f"reports what is not understood: {said!r}") from error


def set_up_logging(level: str, name: str) -> None:
    """Logs to standard error, with ``name`` in every line; of what others log, not all."""
    escaped = name.replace("%", "%%")
    line = f"%(asctime)s %(levelname)s {escaped} %(name)s: %(message)s"
    set_up_one_line(line, level.upper(), ForeignRecords())


class Terminated:
    """Becomes readable when one of ``signals`` arrives; handlers only queue, loops act.

    A SIGHUP that is ignored stays so: ``nohup`` has asked for it.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self._wake = Wake()
        for number in signals:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: self._wake.set())

    def fileno(self) -> int:
        return self._wake.fileno()


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
        return os.read(self._descriptor, _MAX_TEXT).decode(errors="replace") if is_readable else ""

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
        reports.send(Ready(str(error)[:_MAX_TEXT], control.error_code(error)))
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
        from canbroker.actors.channel import ChannelActor  # noqa: PLC0415

        channel = ChannelActor(spec)
        # Its state stream says that it lives.
        return lambda lifelines, _: channel.run(*lifelines, last_words=broker.last_words)
    from canbroker.actors.scheduler import SchedulerActor  # noqa: PLC0415

    scheduler = SchedulerActor(spec)
    return lambda lifelines, beat: scheduler.run(*lifelines, beat=beat)


_spec_decoder = msgspec.json.Decoder(Spec)
_report_decoder = msgspec.json.Decoder(Ready | Alive)


if __name__ == "__main__":
    code: int = Exit.CRASHED
    try:
        code = main(sys.argv[1:])
    except BaseException:
        _logger.exception("the actor crashed")
    finally:
        sys.exit(_end(code))
