"""What a consumer of NATS is asked to read, checked before a server is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, Self

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.integrations.nats.position import Position
from canbroker.jetstream import subjects
from canbroker.jetstream.ordered import Last, Start
from canbroker.jetstream.server import Tls
from canbroker.jetstream.stream_state import StreamState
from canbroker.model.filters import FilterSet
from canbroker.model.plain_numbers import plain
from canbroker.system import clock

#: Filters of one consumer; more are read with wildcards, or by several consumers.
_MAX_SUBJECTS: Final = 1000

Names = str | Iterable[str] | None


class Wish(NamedTuple):
    """What to read. Without ``after`` and ``since_ns``: what comes from now on.

    ``widest`` has all ``subjects``, with wildcards.
    """

    subjects: tuple[str, ...]
    widest: str
    stream: str | None
    after: Position | int | None
    since_ns: int | None
    follow: bool
    filters: FilterSet

    @classmethod
    def of(
        cls,
        names: Mapping[str, Names],
        stream: str | None,
        after: Position | str | int | None,
        since: datetime | float | None,
        follow: bool,
        filters: FilterSet,
    ) -> Self:
        """As :func:`~canbroker.integrations.nats.batches.batches` is told it.

        :param names: of ``site``, ``bench`` and ``channel``.
        :raises ValueError: something is wrong; says which.
        """
        listed = [_names(key, given) for key, given in names.items()]
        return cls(
            subjects=_subjects(listed),
            widest=subjects.frames(*(each[0] if len(each) == 1 else None for each in listed)),
            stream=stream,
            after=_after(after),
            since_ns=_since(since, after),
            follow=follow,
            filters=filters,
        )

    @property
    def position(self) -> Position | None:
        """Where to begin, if it is a position."""
        return self.after if isinstance(self.after, Position) else None

    def start(self, state: StreamState) -> Start | Last:
        """Where to begin in the stream.

        :raises CanInitializationError: the stream is not the one that the position is of.
        """
        after = self.after
        if after is None:
            if self.since_ns is not None:
                return Start(time_ns=self.since_ns)
            return Start(sequence=state.last + 1)
        if isinstance(after, int):
            if after > state.last:
                raise CanInitializationError(
                    f"after={after}: stream {state.name} has only {state.last} messages; was it "
                    "made anew?"
                )
            return Start(sequence=after + 1)
        if (after.stream, after.created) != (state.name, state.created):
            raise CanInitializationError(
                f"the position is of stream {after.stream}, made at {after.created}; the server "
                f"has {state.name}, made at {state.created}: begin there with since="
            )
        return Last(after.sequence, after.message_id, after.time_ns)


def _names(key: str, given: Names) -> list[str | None]:
    if given is None or isinstance(given, str):
        return [given]
    several: object = given
    names = list(dict.fromkeys(several)) if isinstance(several, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a name, several, or None for all, got {given!r}")
    return names


def _subjects(names: list[list[str | None]]) -> tuple[str, ...]:
    wanted = tuple(subjects.frames(*each) for each in itertools.product(*names))
    if len(wanted) > _MAX_SUBJECTS:
        raise ValueError(f"{len(wanted)} subjects; a consumer has at most {_MAX_SUBJECTS}")
    return wanted


def _after(given: Position | str | int | None) -> Position | int | None:
    if isinstance(given, str):
        return Position.parse(given)
    if given is None or isinstance(given, Position):
        return given
    number: object = plain(given)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"after must be a position or a sequence of the stream, got {given!r}")
    return number


def _since(given: datetime | float | None, after: object) -> int | None:
    if given is None:
        return None
    if after is not None:
        raise ValueError("after and since are two beginnings; give one of them")
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError("since must say its time zone, as datetime.now(UTC) does")
        given = given.timestamp()
    seconds = plain(given)
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1 << 33:
        raise ValueError(f"since must be seconds since 1970, got {given!r}")
    return int(seconds * clock.SECOND)


def tls_of(given: Tls | Mapping[str, str] | None) -> Tls | None:
    """The files of TLS.

    :raises ValueError: something else is given.
    """
    try:
        return given if given is None else msgspec.convert(given, Tls, from_attributes=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"tls: {error}") from error
