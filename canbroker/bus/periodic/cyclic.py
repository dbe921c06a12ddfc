"""The classes of periodic tasks that python-can documents, and checks of their arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final

from canbroker.model.frame import Frame, identifier_text
from canbroker.model.message import Message, to_frame
from canbroker.model.plain_numbers import plain
from canbroker.model.protection import E2E, Checksum, Counter, Crc8, protection
from canbroker.system.clock import MICROSECOND, SECOND
from canbroker.wire.tasks import MAX_MESSAGES, MAX_PERIOD_NS, MIN_PERIOD_NS

#: Longer than the monotonic clock can count: the same as for ever.
_MAX_DURATION_S: Final = 4e9


class CyclicTask(ABC):
    """Something that is done repeatedly."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it, until it is started again. Does nothing if it has ended."""


class CyclicSendTaskABC(CyclicTask):
    """Sends messages in turn, one per period.

    ``messages``: a tuple of copies; ``arbitration_id``: the identifier of all; ``period`` in
    seconds, ``period_ns`` in nanoseconds.
    """

    def __init__(self, messages: Message | Sequence[Message], period: float) -> None:
        """:raises ValueError: no messages, several identifiers, or not a valid period.

        :raises CanOperationError: a controller cannot send one of the messages.
        """
        self.messages = copies(messages)
        self.arbitration_id = self.messages[0].arbitration_id
        self.period = period
        self.period_ns = period_ns_of(period)


class LimitedDurationCyclicSendTaskABC(CyclicSendTaskABC):
    """Ends by itself after ``duration`` seconds; ``None`` or 0: never."""

    def __init__(
        self,
        messages: Message | Sequence[Message],
        period: float,
        duration: float | None,
    ) -> None:
        """As the base class.

        :raises ValueError: ``duration`` is not valid, or as the base class.
        :raises CanOperationError: as the base class.
        """
        super().__init__(messages, period)
        self.duration = duration
        self.duration_ns = _duration_ns_of(duration)


class RestartableCyclicTaskABC(CyclicSendTaskABC):
    """Can be started again."""

    @abstractmethod
    def start(self) -> None:
        """Starts it, from the first message and for the full duration, unless it runs."""


class ModifiableCyclicTaskABC(CyclicSendTaskABC):
    """Its data can be changed while it runs."""

    @abstractmethod
    def modify_data(self, messages: Message | Sequence[Message]) -> None:
        """Sends other messages from the next due time on.

        :raises ValueError: their number or identifier is another one.
        """

    def _successors(self, messages: Message | Sequence[Message]) -> tuple[Message, ...]:
        """Copies of ``messages``, if they may replace the present ones."""
        new = copies(messages)
        if len(new) != len(self.messages):
            raise ValueError(f"the task sends {len(self.messages)} messages, not {len(new)}")
        if _identifier(new[0]) != _identifier(self.messages[0]):
            raise ValueError(
                f"the task's arbitration_id is {_identifier(self.messages[0])}, "
                f"and cannot become {_identifier(new[0])}"
            )
        return new


def copies(messages: Message | Sequence[Message]) -> tuple[Message, ...]:
    """Copies of one message, or of several with one identifier.

    :raises ValueError: not a message nor a sequence, an empty sequence, several identifiers.
    :raises CanOperationError: a controller cannot send one of the messages.
    """
    given: Sequence[Any] = [messages] if hasattr(messages, "arbitration_id") else messages
    if not isinstance(given, Sequence):
        raise ValueError(f"{messages!r} is neither a message nor a sequence of messages")
    if not 1 <= len(given) <= MAX_MESSAGES:
        raise ValueError(f"a task sends 1 to {MAX_MESSAGES:,} messages, got {len(given)}")
    copied = tuple(
        Message.from_frame(to_frame(message), getattr(message, "channel", None))
        for message in given
    )
    for message in copied:
        if _identifier(message) != _identifier(copied[0]):
            raise ValueError(
                "all messages of a task must have the same arbitration_id, "
                f"got {_identifier(copied[0])} and {_identifier(message)}"
            )
    return copied


def frames_of(messages: Sequence[Message]) -> list[Frame]:
    """:raises CanOperationError: a controller cannot send one of the messages."""
    return [to_frame(message) for message in messages]


def period_ns_of(period: float) -> int:
    """:raises ValueError: not above 0 s, shorter than a frame, or longer than a year."""
    # Compared before it is converted: NaN and infinity cannot be integers.
    period = _number("period", period)
    if not 0 < period <= MAX_PERIOD_NS / SECOND:
        raise ValueError(f"period must be above 0 s and at most a year, got {period!r}")
    if round(period * SECOND) < MIN_PERIOD_NS:
        raise ValueError(
            f"period must be at least {MIN_PERIOD_NS // MICROSECOND} µs, the time of a short frame "
            f"at 1 Mbit/s, got {period!r} s"
        )
    return round(period * SECOND)


def phase_ns_of(phase: float | None, period_ns: int) -> int | None:
    """:raises ValueError: not within the period."""
    if phase is None:
        return None
    phase = _number("phase", phase)
    if not 0 <= phase < period_ns / SECOND or round(phase * SECOND) >= period_ns:
        raise ValueError(
            f"phase must be at least 0 s and less than the period "
            f"({period_ns / SECOND:g} s), got {phase!r}"
        )
    return round(phase * SECOND)


def check_protection(
    counter: Counter | None, checksum: Checksum | None, frames: Sequence[Frame]
) -> None:
    """:raises ValueError: of another type, or they do not fit a frame or each other."""
    if not isinstance(counter, Counter | None):
        raise ValueError(f"counter must be a Counter, got {counter!r}")
    if not isinstance(checksum, Crc8 | E2E | None):
        raise ValueError(f"checksum must be a Crc8 or an E2E, got {checksum!r}")
    if counter is None and checksum is None:
        return
    for length in {len(frame.data) if isinstance(frame.data, bytes) else 0 for frame in frames}:
        protection(counter, checksum, length)


def _number(what: str, value: Any) -> float:
    number = plain(value)
    if not isinstance(number, Real):
        raise ValueError(f"{what} must be a number of seconds, got {value!r}")
    return number  # type: ignore[return-value] # all that is compared and multiplied is a Real


def _duration_ns_of(duration: float | None) -> int | None:
    if duration is None:
        return None
    duration = _number("duration", duration)
    if duration == 0:
        return None
    if not duration > 0:
        raise ValueError(f"duration must be a number of seconds or None, got {duration!r}")
    return max(1, round(min(duration, _MAX_DURATION_S) * SECOND))


def _identifier(message: Message) -> str:
    return identifier_text(message.arbitration_id, message.is_extended_id)
