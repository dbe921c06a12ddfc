"""What begins a triggered recording: a condition on frames, as text."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from canbroker.errors import CanInitializationError
from canbroker.logs.candump import parse_dump_filters
from canbroker.model.filters import EVERYTHING, Filter, FilterSet
from canbroker.model.frame import ERROR, EXTENDED, MAX_EXTENDED_ID, MAX_STANDARD_ID, Frame
from canbroker.signals import load_databases

#: Whether a frame fulfils the condition.
Condition: TypeAlias = Callable[[Frame], bool]

_ERROR: Final = "error"
_PATTERN: Final = re.compile(
    r"([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})#((?:[0-9A-Fa-f]{2}|\.\.)*)(…|\*|\.\.\.)?"
)
_SIGNAL: Final = re.compile(r"(?:(\w+)\.)?(\w+)\s*(<=|>=|==|!=|<|>)\s*([-+]?[0-9][0-9.eE+-]*)")

_COMPARES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}

FORMS: Final = (
    "expected error, a frame like 123#01.. or 123#01*, candump's filters like 400:700, "
    "or a comparison like EngineSpeed > 3000"
)


class _Signal(NamedTuple):
    message: str | None
    name: str
    compare: str
    limit: float


def needed(text: str) -> FilterSet:
    """The frames that a trigger has to see.

    :raises ValueError: the text is not a trigger.
    """
    if text == _ERROR:
        return FilterSet([Filter(0, 0, None, True)])  # also those without a class
    if (match := _PATTERN.fullmatch(text)) is not None:
        identifier, extended = _identifier(match[1])
        mask = MAX_EXTENDED_ID if extended else MAX_STANDARD_ID
        return FilterSet([Filter(identifier, mask, extended, False)])
    if _signal(text) is not None:
        return EVERYTHING
    try:
        return parse_dump_filters(text)
    except ValueError as error:
        raise ValueError(f"{error}; {FORMS}") from error


def condition(text: str, database: str) -> Condition:
    """The condition that the text of a trigger means.

    :param database: file with the signals that it names; empty if there is none.
    :raises CanInitializationError: the database cannot be read, or has no such signal.
    """
    if text == _ERROR:
        return lambda frame: bool(frame.flags & ERROR)
    if (match := _PATTERN.fullmatch(text)) is not None:
        return _pattern(match)
    if (signal := _signal(text)) is not None:
        return _comparison(signal, database)
    filters = parse_dump_filters(text)
    return lambda frame: filters.matches(frame.arbitration_id, frame.flags)


def _identifier(digits: str) -> tuple[int, bool]:
    return int(digits, 16), len(digits) == 8


def _pattern(match: re.Match[str]) -> Condition:
    identifier, extended = _identifier(match[1])
    pairs = re.findall("..", match[2])
    wanted = [(at, int(pair, 16)) for at, pair in enumerate(pairs) if pair != ".."]
    is_prefix = bool(match[3])

    def fulfils(frame: Frame) -> bool:
        data = frame.data
        if frame.arbitration_id != identifier or bool(frame.flags & EXTENDED) != extended:
            return False
        if isinstance(data, int) or frame.flags & ERROR:
            return False
        fits = len(data) >= len(pairs) if is_prefix else len(data) == len(pairs)
        return fits and all(data[at] == byte for at, byte in wanted)

    return fulfils


def _signal(text: str) -> _Signal | None:
    match = _SIGNAL.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return _Signal(match[1], match[2], match[3], float(match[4]))
    except ValueError:
        return None


def _has(message: Any, signal: _Signal) -> bool:
    """Whether a message of a database has a signal."""
    if signal.message not in {None, message.name}:
        return False
    return any(each.name == signal.name for each in message.signals)


def _comparison(signal: _Signal, database: str) -> Condition:
    if not database:
        raise CanInitializationError(f"the trigger names signal {signal.name!r}: give a database")
    decoder = load_databases([database])
    from canbroker.signals.decoder import UNDECODABLE  # noqa: PLC0415 - of an extra

    messages = [message for message in decoder.messages if _has(message, signal)]
    if not messages:
        name = f"{signal.message}.{signal.name}" if signal.message else signal.name
        raise CanInitializationError(f"database {database} has no signal {name!r}")
    compare, limit = _COMPARES[signal.compare], signal.limit

    def fulfils(frame: Frame) -> bool:
        message = decoder.message(frame)
        if message is None or message not in messages:
            return False
        if isinstance(frame.data, int) or frame.flags & ERROR:
            return False
        try:
            values = message.decode(bytes(frame.data), decode_choices=False, allow_truncated=True)
        except UNDECODABLE:  # the database does not describe such data
            return False
        return signal.name in values and compare(values[signal.name], limit)

    return fulfils
