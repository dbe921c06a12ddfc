"""From a serial line to an adapter that is configured and open.

Clean-up first: whoever used the adapter before may have crashed with its channel open. Bytes until
the answer to ``V`` belong to that time. Then each command waits for CR (done) or BEL (refused).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from canbroker.backends.slcan.options import BITRATES, DATA_BITRATES, SlcanOptions
from canbroker.backends.slcan.port import Port
from canbroker.clock import MILLISECOND, monotonic_ns
from canbroker.errors import CanInitializationError
from canbroker.slcan_codec import BEL, CR, LineBuffer

_ANSWER_NS = 500 * MILLISECOND


class Adapter(NamedTuple):
    """What an open adapter said of itself."""

    version: str | None
    serial: str | None
    acknowledges: bool
    lines: LineBuffer  # with the beginning of a line that was not complete yet
    early: list[tuple[bytes, bytes]]  # lines that came right behind the last answer


def handshake(port: Port, options: SlcanOptions) -> Adapter:
    """Configures the adapter and opens its channel. Blocks, 0.5 s for each answer that is missing.

    Frames that arrive meanwhile are ignored.

    :raises CanInitializationError: nothing answers, or a command was refused; names it.
    :raises AdapterGoneError: the device went away.
    """
    return _Handshake(port, options).run()


class _Handshake:
    def __init__(self, port: Port, options: SlcanOptions) -> None:
        self._port = port
        self._options = options
        self._buffer = LineBuffer()
        self._answers: deque[tuple[bytes, bytes]] = deque()
        self._heard = False  # anything at all
        self._acknowledged = False  # a bare CR or BEL, as an answer has it

    def run(self) -> Adapter:
        self._port.write(b"\rC\r")
        version = self._ask(b"V", until_refused=False)
        if not self._heard:
            raise CanInitializationError(
                f"no answer from {self._port.name}; is it an slcan adapter?"
            )
        serial = self._ask(b"N", until_refused=True)
        silent = False
        for command, meaning, needed in _commands(self._options):
            if silent:
                self._port.write(command + CR)
                continue
            answer = self._command(command)
            if answer is None and version is not None and not self._acknowledged:
                silent = True  # firmware that answers questions and acknowledges nothing
            elif answer is None:
                raise self._failed("did not answer", command, meaning)
            elif answer == BEL and needed:
                raise self._failed("refused", command, meaning)
        return Adapter(version, serial, not silent, self._buffer, list(self._answers))

    def _failed(self, what: str, command: bytes, meaning: str) -> CanInitializationError:
        return CanInitializationError(
            f"adapter {self._port.name} {what} '{command.decode('ascii')}' ({meaning})"
        )

    def _ask(self, question: bytes, until_refused: bool) -> str | None:
        """The answer to a question: the line that begins with its letter."""
        self._port.write(question + CR)
        deadline = monotonic_ns() + _ANSWER_NS
        while (answer := self._next(deadline)) is not None:
            line, terminator = answer
            if line.startswith(question) and terminator == CR and line.isascii():
                return line.decode("ascii")
            if terminator == BEL and until_refused:
                return None
        return None

    def _command(self, command: bytes) -> bytes | None:
        """The terminator that answers a command; ``None`` if nothing does."""
        self._port.write(command + CR)
        deadline = monotonic_ns() + _ANSWER_NS
        while (answer := self._next(deadline)) is not None:
            line, terminator = answer
            if terminator == BEL or not line:
                return terminator
        return None

    def _next(self, deadline: int) -> tuple[bytes, bytes] | None:
        """The next line; ``None`` if there is none until ``deadline``."""
        while not self._answers:
            if monotonic_ns() >= deadline:
                return None
            data = self._port.wait()
            self._heard = self._heard or bool(data)
            self._answers.extend(self._buffer.feed(data))
        line, terminator = self._answers.popleft()
        self._acknowledged = self._acknowledged or not line
        return line, terminator


def _commands(options: SlcanOptions) -> list[tuple[bytes, str, bool]]:
    """``(command, what it means, whether a refusal fails the open)``, in order."""
    commands = []
    if options.bitrate is not None:
        commands.append((f"S{BITRATES[options.bitrate]}", f"bitrate {options.bitrate}", True))
    if options.btr is not None:
        commands.append((f"s{options.btr}", f"bit timing registers {options.btr}", True))
    if options.data_bitrate is not None:
        rate = options.data_bitrate
        commands.append((f"Y{DATA_BITRATES[rate]}", f"data bitrate {rate}", True))
    commands.append(("Z1", "timestamps", False))
    if options.listen_only:
        commands.append(("L", "open the channel listen-only", True))
    else:
        commands.append(("O", "open the channel", True))
    return [(command.encode("ascii"), meaning, needed) for command, meaning, needed in commands]
