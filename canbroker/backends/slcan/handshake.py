"""Configures and opens the adapter on a serial line.

Adapters differ in their answers. One that follows the manual says ``V1013`` and acknowledges each
command. Others answer only ``V``, with a line of text; do not know ``V``; boot for two seconds when
the port is opened; or never answer. So only a refusal (BEL) is fatal.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from canbroker.backends.slcan.codec import ACK, BEL, CR, LF, LineBuffer
from canbroker.backends.slcan.commands import Command, closing, commands_of, names
from canbroker.backends.slcan.dialects import CANDAPTER, DIALECTS, Dialect, dialect_of
from canbroker.backends.slcan.options import AnsweringOptions, SlcanOptions
from canbroker.backends.slcan.port import Port
from canbroker.errors import CanInitializationError
from canbroker.system.clock import MILLISECOND, SECOND, monotonic_ns

#: Wait for the answer to a command; longer if the adapter has answered more slowly than that.
_ANSWER_NS: Final = 500 * MILLISECOND
_LONGEST_ANSWER_NS: Final = 1500 * MILLISECOND
_FORK_NS: Final = 100 * MILLISECOND
#: For the first sign of life: an Arduino's boot loader takes 2 s.
_FIRST_SIGN_NS: Final = 3 * SECOND
_ASK_AGAIN_NS: Final = 250 * MILLISECOND
#: After this many answers to C and none to V, the adapter does not know V.
_ANSWERED: Final = 3
#: The bytes that overrun a line buffer are written in pieces of this size.
#: NickTaormina/ESP32-SLCAN stops reading forever once its buffer of 64 bytes is full.
_PIECE: Final = 33
#: A version that the manual does not define must come as often as it is asked for.
_TIMES: Final = 3
_VERSION: Final = re.compile(rb"[Vv][0-9A-Za-z]{1,8}")
#: Text is complete when nothing has followed it for this time.
_QUIET_NS: Final = 50 * MILLISECOND

#: Kinds of answers to F, as far as they distinguish an open channel from a closed one.
STATUS, REFUSED, DONE = "status", "refused", "done"

#: Also the rest of a frame after bytes were lost.
_FRAME_LIKE: Final = re.compile(rb"[trdbTRDBx][0-9A-Fa-f]*")

Line = tuple[bytes, bytes]


@dataclass(frozen=True)
class Adapter:
    """What is known of an open adapter.

    ``answers``: it has answered at all. ``acknowledges`` transmits: ``None`` if that is not known
    before the first one. ``unanswered``: commands without an answer. ``status``: the kind of its
    answer to F once it was open: :data:`STATUS`, :data:`REFUSED`, :data:`DONE`, or ``None`` without
    one. ``answer_ns``: no answer took longer. ``commands`` configured and opened it. ``lines``
    holds the beginning of an incomplete line; ``early`` are the lines that followed the answer to
    the last command.
    """

    version: str | None
    serial: str | None
    dialect: Dialect
    answers: bool
    acknowledges: bool | None
    unanswered: list[str]
    status: str | None
    answer_ns: int
    commands: list[bytes]
    lines: LineBuffer
    early: list[Line] = field(default_factory=list)


def handshake(port: Port, options: SlcanOptions) -> Adapter:
    """Configures the adapter and opens its channel. Blocks for 3 s at most if nothing answers.

    Frames that arrive meanwhile are ignored.

    :raises CanInitializationError: a command was refused, the adapter does not support a requested
        option, or it is silent now although it answered when it was opened before; says which.
    :raises AdapterGoneError: the device went away.
    """
    return _Handshake(port, options).run()


class _Handshake:
    def __init__(self, port: Port, options: SlcanOptions) -> None:
        self._port = port
        self._options = options
        self._buffer = LineBuffer()
        self._waiting: deque[Line] = deque()
        self._began_ns = 0
        self._answer_ns = 0  # the longest that an answer may have taken
        self._asked_ns = 0  # when the last question was asked
        self._versions_asked = 0
        self._versions = 0  # answers to V
        self._bare = 0  # answers that only say "done" or "refused"
        self._bare_before = 0  # the last question
        self._first_bare_ns = 0
        self._is_candapter = False

    def run(self) -> Adapter:
        self._rest()
        version = self._greet()
        answers = bool(version or self._bare)
        if not answers and self._must_answer():
            raise CanInitializationError(
                f"no answer from {self._port.name}; is it an slcan adapter?"
            )
        dialect = self._dialect(version)
        serial = self._catch_up(dialect) if answers else None
        commands = commands_of(self._options, dialect, self._named(version))
        unanswered, is_silent = self._configure(commands, dialect, version)
        dialect = self._dialect(version)  # a CANdapter is recognised by its acknowledgements
        status, early = self._await_version(version) if is_silent else self._status()
        acknowledges: bool | None = None if unanswered else True
        if is_silent and version is not None:
            acknowledges = False
        return Adapter(
            version=version,
            serial=serial,
            dialect=dialect,
            answers=answers,
            acknowledges=acknowledges,
            unanswered=unanswered,
            status=status,
            answer_ns=self._patience_ns(),
            commands=[command.line for command in commands],
            lines=self._buffer,
            early=early,
        )

    # --------------------------------------------------------------------- identification

    def _rest(self) -> None:
        until = monotonic_ns() + int(self._options.sleep_after_open * SECOND)
        while monotonic_ns() < until:
            self._port.wait()

    def _must_answer(self) -> bool:
        return isinstance(self._options, AnsweringOptions) or self._options.dialect != "auto"

    def _dialect(self, version: str | None) -> Dialect:
        if self._options.dialect != "auto":
            return DIALECTS[self._options.dialect]
        return CANDAPTER if self._is_candapter else dialect_of(version)

    def _named(self, version: str | None) -> str:
        return f"adapter {self._port.name}" + (f" ({version})" if version else "")

    def _greet(self) -> str | None:
        """Closes the channel and returns the answer to ``V``; ``None`` if it has none.

        A line of text is the answer only if each further ``V`` brings the same one: a booting
        adapter writes text, too.
        """
        self._began_ns = monotonic_ns()
        deadline = self._began_ns + _FIRST_SIGN_NS
        self._ask_version(closing(self._dialect(None).line_buffer))
        before: set[bytes] = set()  # text that came after earlier questions
        now: set[bytes] = set()
        again_ns = self._asked_ns + _ASK_AGAIN_NS
        answered = 0  # questions in a row that brought an answer to C, and none to V
        while True:
            answer = self._next(min(again_ns, deadline))
            if answer is None:
                answered = answered + 1 if self._bare > self._bare_before else 0
                if answered == _ANSWERED or monotonic_ns() >= deadline:
                    self._answer_ns = max(0, self._first_bare_ns - self._began_ns)
                    return None
                self._ask_version(b"" if now else b"C" + CR)
                before, now = before | now, set()
                again_ns = self._asked_ns + _ASK_AGAIN_NS
                continue
            line, terminator = answer
            if not _is_text(line, terminator):
                continue
            if line.startswith(b"CCCC"):
                raise self._echoes()
            if _VERSION.fullmatch(line) or (line in before and self._confirmed(line)):
                self._versions += 1
                self._answer_ns = self._answer_ns or monotonic_ns() - self._began_ns
                return line.decode("ascii")
            now.add(line)
            again_ns = monotonic_ns() + _QUIET_NS

    def _confirmed(self, text: bytes) -> bool:
        """Whether each of several ``V`` brings that text."""
        self._answer_ns = monotonic_ns() - self._began_ns
        self._port.write((b"V" + CR) * _TIMES)
        self._versions_asked += _TIMES
        deadline = monotonic_ns() + max(3 * _QUIET_NS, 2 * self._answer_ns)
        times = 0
        while times < _TIMES and (answer := self._next(deadline)) is not None:
            times += answer[0] == text
        self._versions += times
        return times == _TIMES

    def _echoes(self) -> CanInitializationError:
        return CanInitializationError(
            f"{self._port.name} echoes everything that is written to it; is it an slcan adapter?"
        )

    def _ask_version(self, first: bytes) -> None:
        for start in range(0, len(first), _PIECE):
            self._port.write(first[start : start + _PIECE])
        self._port.write(b"V" + CR)
        self._versions_asked += 1
        self._bare_before = self._bare
        self._asked_ns = monotonic_ns()

    def _catch_up(self, dialect: Dialect) -> str | None:
        """Waits for the answers to repeated questions; returns the serial number.

        Answers come in order: after the answer to ``N``, or to the last ``V``, none is missing.
        """
        if dialect.has_serial_number:
            self._port.write(b"N" + CR)
            self._asked_ns = monotonic_ns()
        elif self._versions == self._versions_asked:
            return None
        deadline = self._asked_ns + self._patience_ns()
        while (answer := self._next(deadline)) is not None:
            line, terminator = answer
            if line[:1] in b"Vv" and _is_text(line, terminator):
                self._versions += 1
            elif line[:1] == b"N" and _is_text(line, terminator):
                return line.decode("ascii")
            if self._versions < self._versions_asked:
                continue
            if terminator == BEL or not dialect.has_serial_number:
                return None
        return None

    def _patience_ns(self) -> int:
        """How long to wait for an answer."""
        return min(max(_ANSWER_NS, 2 * self._answer_ns), _LONGEST_ANSWER_NS)

    # ----------------------------------------------------------------------- configuration

    def _configure(
        self, commands: list[Command], dialect: Dialect, version: str | None
    ) -> tuple[list[str], bool]:
        """Writes the commands; returns those without an answer, and whether it never answers."""
        unanswered = []
        is_silent = False
        patience_ns = self._patience_ns()
        if dialect.repeatable:  # only a fork of the firmware answers, as fast as to V
            patience_ns = min(patience_ns, max(_FORK_NS, 4 * self._answer_ns))
        for command in commands:
            self._port.write(command.line)
            answer = None if is_silent else self._answer(patience_ns, command)
            if answer is None and self._bare and version is not None:
                answer = self._late_answer()
            if answer is None:
                unanswered.append(command.text)
                is_silent = not self._bare
                if command.proven:
                    raise CanInitializationError(
                        f"adapter {self._port.name} did not answer '{command.text}' "
                        f"({command.meaning}), so it is not known whether it does that; "
                        f"if its firmware is one of {names()}, say so with dialect="
                    )
            elif answer == BEL and command.needed:
                raise CanInitializationError(
                    f"adapter {self._port.name} refused '{command.text}' ({command.meaning})"
                )
        return unanswered, is_silent

    def _answer(self, patience_ns: int, command: Command) -> bytes | None:
        """The terminator of the answer to a command; ``None`` if there is none."""
        deadline = monotonic_ns() + patience_ns
        while (answer := self._next(deadline)) is not None:
            line, terminator = answer
            if terminator == BEL or not line:
                self._is_candapter = self._is_candapter or terminator == ACK
                return terminator
            if line == command.line[:-1]:
                raise self._echoes()
        return None

    def _late_answer(self) -> bytes | None:
        """Like :meth:`_answer` for a late answer: it must come before the answer to ``V``."""
        self._port.write(b"V" + CR)
        deadline = monotonic_ns() + _LONGEST_ANSWER_NS
        late: bytes | None = None
        while (answer := self._next(deadline)) is not None:
            line, terminator = answer
            if _is_text(line, terminator):
                break
            if terminator == BEL or not line:
                late = terminator
        return late

    def _await_version(self, version: str | None) -> tuple[None, list[Line]]:
        """Waits until an adapter that acknowledges nothing has executed its commands, which the
        answer to ``V`` shows. Returns the lines that came before it."""
        early: list[Line] = []
        if version is not None:
            self._port.write(b"V" + CR)
            deadline = monotonic_ns() + self._patience_ns()
            while (answer := self._next(deadline)) != (version.encode("ascii"), CR):
                if answer is None:
                    raise CanInitializationError(
                        f"adapter {self._port.name} said {version!r} and does not answer V; "
                        "was it booting?"
                    )
                early.append(answer)
        return None, [*early, *self._waiting]

    def _status(self) -> tuple[str | None, list[Line]]:
        """The kind of the answer to ``F`` of an open channel, and the lines that came before it."""
        self._port.write(b"F" + CR)
        deadline = monotonic_ns() + self._patience_ns()
        early: list[Line] = []
        while (answer := self._next(deadline)) is not None:
            if (kind := status_kind(*answer)) is not None:
                return kind, [*early, *self._waiting]
            early.append(answer)
        return None, early

    def _next(self, deadline: int) -> Line | None:
        """The next line; ``None`` if there is none until ``deadline``."""
        while not self._waiting:
            if monotonic_ns() >= deadline:
                return None
            data = self._port.wait()
            self._waiting.extend(self._buffer.feed(data) if data else self._buffer.release())
        line, terminator = self._waiting.popleft()
        if not line or terminator in (BEL, ACK):
            self._first_bare_ns = self._first_bare_ns or monotonic_ns()
            self._bare += 1
        return line, terminator


def status_kind(line: bytes, terminator: bytes) -> str | None:
    """The kind of answer to ``F`` that a line is; ``None`` if it is not one."""
    if terminator == BEL:
        return REFUSED
    if len(line) == 3 and line[:1] in b"Ff":
        return STATUS
    return None if line else DONE


def _is_text(line: bytes, terminator: bytes) -> bool:
    """Whether a line is text: neither a frame nor an acknowledgement."""
    if terminator not in (CR, LF) or not line.isascii() or not line.decode("ascii").isprintable():
        return False
    return len(line) > 1 and not _FRAME_LIKE.fullmatch(line)
