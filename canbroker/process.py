"""Process entry of actors: specification in, ready out, signals, logging, lifeline, exit codes.

The parent writes one line of JSON, the specification, to the child's standard input and keeps the
pipe open: its end of file, when the parent stops the child or dies, is the order to leave. The
child answers with one line on its standard output, ready or the reason why not, and logs to its
standard error. Then it may say, a line each time, that it lives.
"""

from __future__ import annotations

import enum
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO, Final, cast

import msgspec

from canbroker.actors.specs import ChannelSpec, Spec
from canbroker.errors import CanError
from canbroker.fabric.sockets import Descriptor
from canbroker.priority import raise_priority
from canbroker.throttle import ForeignRecords
from canbroker.wake import Wake
from canbroker.wire import control
from canbroker.wording import set_up_one_line

#: Objects that may be garbage before it is looked for. In a queue of frames there are as many that
#: are none, which Python would go through every 700.
_GARBAGE: Final = 20_000

#: A thread of an actor that has something to do waits for the other one this long at most.
_SWITCH_S: Final = 0.0005

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


class Child:
    """A running actor process, seen from the broker. Watch :meth:`fileno` for its answers."""

    def __init__(self, name: str, spec: Spec) -> None:
        """Starts the process; returns at once. ``name`` shows in the list of processes.

        ``-P``: the user's working directory may hold a ``serial.py`` that is not pyserial.
        """
        command = [sys.executable, "-P", "-m", "canbroker.process", name]
        ring = getattr(spec, "ring_descriptor", None)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if ring is None else (ring,),
        )
        self.pid = self._process.pid
        self._lifeline = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        try:
            self._lifeline.write(msgspec.json.encode(spec) + b"\n")
            self._lifeline.flush()
        except BrokenPipeError:
            _logger.warning("actor process %d ended before it was told what to do", self.pid)

    def fileno(self) -> int:
        return self._answers.fileno()

    def answer(self) -> Ready | Alive | None:
        """The child's line, when :meth:`fileno` is readable; ``None`` when the child has ended."""
        line = self._answers.readline(65_536)
        return _answer_decoder.decode(line) if line else None

    def release(self) -> None:
        """Tells the child to leave, by closing its lifeline."""
        try:
            self._lifeline.close()
        except BrokenPipeError:
            _logger.debug("actor process %d had left before", self.pid)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout_s: float | None) -> int | None:
        """The exit code, ``None`` if the child still runs after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Closes the pipes of a child that has ended."""
        self.release()
        self._answers.close()


def set_up_logging(level: str, name: str) -> None:
    """Logs to standard error, with ``name`` in every line; of what others log, not all."""
    escaped = name.replace("%", "%%")
    line = f"%(asctime)s %(levelname)s {escaped} %(name)s: %(message)s"
    set_up_one_line(line, level.upper(), ForeignRecords())


class Terminated:
    """Becomes readable when one of ``signals`` arrives; handlers only queue, loops act."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._wake = Wake()
        for number in signals:
            signal.signal(number, lambda *_: self._wake.set())

    def fileno(self) -> int:
        return self._wake.fileno()


class Answers:
    """The child's end of the pipe to its parent.

    The pipe is taken off standard output, where a driver's library may print what it likes:
    that goes to standard error from now on.
    """

    def __init__(self) -> None:
        self._descriptor = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        os.set_blocking(self._descriptor, False)

    def send(self, answer: Ready | Alive) -> None:
        try:
            os.write(self._descriptor, msgspec.json.encode(answer) + b"\n")
        except BlockingIOError:
            _logger.warning("the broker does not read what its actors say")


def main() -> int:
    """Runs one actor until its lifeline ends; returns the exit code."""
    # A terminal sends SIGINT to the whole group; the broker decides when its actors leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline(1 << 20)
    if not line.endswith(b"\n"):
        return Exit.REFUSED  # the parent died before it said anything
    spec = _spec_decoder.decode(line)
    set_up_logging(spec.log_level, sys.argv[1])
    raise_priority()
    answers = Answers()
    lifelines = (sys.stdin.buffer, Terminated(signal.SIGTERM))
    try:
        run = _make(spec)
    except CanError as error:
        answers.send(Ready(str(error)[:_MAX_TEXT], control.error_code(error)))
        return Exit.REFUSED
    # What is loaded stays: it need not be looked through for garbage again and again.
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    sys.setswitchinterval(_SWITCH_S)
    answers.send(Ready())
    try:
        run(lifelines, lambda: answers.send(Alive()))
    except Exception:
        _logger.exception("the actor crashed")
        return Exit.CRASHED
    return Exit.OK


_Run = Callable[[Sequence[Descriptor], Callable[[], None]], None]


def _make(spec: Spec) -> _Run:
    """Makes the actor; returns what runs it, given what ends it and how to say that it lives.

    :raises CanError: it cannot be made.
    """
    # Imported here: neither actor needs what the other one is made of, nor does the broker.
    if isinstance(spec, ChannelSpec):
        from canbroker.actors.channel import ChannelActor  # noqa: PLC0415

        channel = ChannelActor(spec)
        return lambda lifelines, _: channel.run(*lifelines)  # its state stream says that it lives
    from canbroker.actors.scheduler import SchedulerActor  # noqa: PLC0415

    scheduler = SchedulerActor(spec)
    return lambda lifelines, beat: scheduler.run(*lifelines, beat=beat)


_MAX_TEXT: Final = 4096  # a line fits the pipe at once

_spec_decoder = msgspec.json.Decoder(Spec)
_answer_decoder = msgspec.json.Decoder(Ready | Alive)


if __name__ == "__main__":
    sys.exit(main())
