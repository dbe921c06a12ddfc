"""Process entry of actors: specification in, ready out, signals, logging, lifeline, exit codes.

The parent writes one line of JSON, the specification, to the child's standard input and keeps the
pipe open: its end of file, when the parent stops the child or dies, is the order to leave. The
child answers with one line on its standard output, ready or the reason why not, and logs to its
standard error.
"""

from __future__ import annotations

import enum
import logging
import signal
import subprocess
import sys
from typing import IO, cast

import msgspec

from canbroker.actors.channel import ActorCrashedError, ChannelActor, ChannelSpec
from canbroker.errors import CanError
from canbroker.wake import Wake
from canbroker.wire import control

_logger = logging.getLogger(__name__)


class Exit(enum.IntEnum):
    """What an exit code of a canbroker process means."""

    OK = 0
    CRASHED = 70  # a bug; the traceback is in the log (EX_SOFTWARE of sysexits.h)
    REFUSED = 78  # it could not start with this specification (EX_CONFIG)


class Ready(msgspec.Struct):
    """The child's answer: ``error`` is empty when it serves, else the reason why it does not.

    ``code`` groups it as an error of the control protocol does.
    """

    error: str = ""
    code: str = "initialization"


class Child:
    """A running actor process, seen from the broker. Watch :meth:`fileno` for its answers."""

    def __init__(self, spec: ChannelSpec) -> None:
        """Starts the process; returns at once.

        ``-P``: the user's working directory may hold a ``serial.py`` that is not pyserial.
        """
        command = [sys.executable, "-P", "-m", "canbroker.process", spec.name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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

    def answer(self) -> Ready | None:
        """The child's line, when :meth:`fileno` is readable; ``None`` when the child has ended."""
        line = self._answers.readline(65_536)
        return msgspec.json.decode(line, type=Ready) if line else None

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
    """Logs to standard error, with ``name`` in every line."""
    escaped = name.replace("%", "%%")
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {escaped} %(name)s: %(message)s",
    )


class Terminated:
    """Becomes readable when one of ``signals`` arrives; handlers only queue, loops act."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._wake = Wake()
        for number in signals:
            signal.signal(number, lambda *_: self._wake.set())

    def fileno(self) -> int:
        return self._wake.fileno()


def main() -> int:
    """Runs one channel actor until its lifeline ends; returns the exit code."""
    # A terminal sends SIGINT to the whole group; the broker decides when its actors leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline(1 << 20)
    if not line.endswith(b"\n"):
        return Exit.REFUSED  # the parent died before it said anything
    spec = msgspec.json.decode(line, type=ChannelSpec)
    set_up_logging(spec.log_level, spec.name)
    try:
        actor = ChannelActor(spec)
    except CanError as error:
        _answer(Ready(str(error), control.error_code(error)))
        return Exit.REFUSED
    _answer(Ready())
    try:
        actor.run(sys.stdin.buffer, Terminated(signal.SIGTERM))
    except ActorCrashedError:
        return Exit.CRASHED
    return Exit.OK


def _answer(answer: Ready) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
