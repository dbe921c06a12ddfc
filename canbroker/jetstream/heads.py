"""The headers of messages: which frames a message has, or which are missing.

A message of frames says ``Nats-Msg-Id: EPOCH:SITE.BENCH.CHANNEL:FIRST_SEQ``, ``Can-Count``
and ``Can-Time``.
A gap message has no frames; it says in ``Can-Gap`` why others did not come, in ``Can-Lost`` how
many. The next message of the epoch begins with number ``FIRST_SEQ + Can-Count + Can-Lost``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from canbroker.jetstream.subjects import decode_name, encode_name
from canbroker.wire import WireError

MESSAGE_ID: Final = "Nats-Msg-Id"
COUNT: Final = "Can-Count"
TIME: Final = "Can-Time"
GAP: Final = "Can-Gap"
LOST: Final = "Can-Lost"
REASON: Final = "Can-Reason"
OFFSET: Final = "Can-Offset"

#: Of requests to transmit: for how many milliseconds they are valid.
TTL: Final = "Can-Ttl-Ms"

#: Kinds of gaps: frames did not reach NATS; the adapter was away; the channel's process, or its
#: numbers, began again.
LOST_FRAMES: Final = "lost"
INTERRUPTED: Final = "interrupted"
RESTARTED: Final = "restarted"
_GAPS: Final = (LOST_FRAMES, INTERRUPTED, RESTARTED)

_UNKNOWN: Final = "unknown"
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_OFFSET: Final = re.compile(r"-?[0-9]{1,19}")
_MAX: Final = 2**63 - 1
_MAX_COUNT: Final = 1024
_MAX_REASON: Final = 300


class Gap(NamedTuple):
    """Why frames did not come. ``lost``: their number; ``None`` if it is unknown, or if they never
    reached the broker, as with an adapter that is away."""

    kind: str
    lost: int | None
    reason: str


class Head(NamedTuple):
    """Headers of a message.

    ``first_seq``: number of the first of ``frames`` frames in the channel's ``epoch``, or of the
    first that is lost. ``time_ns``: wall clock of the first frame, or when the gap was noticed.
    ``offset``: how far numbers are ahead of those of the broker's route. ``bench``: site and bench
    as in the subject; the server knows ids for all subjects of a stream, and benches that are
    copies of one another may have the same epochs.
    """

    epoch: int
    channel: str
    first_seq: int
    frames: int
    time_ns: int
    gap: Gap | None = None
    offset: int = 0
    bench: tuple[str, str] | None = None

    @property
    def next_seq(self) -> int:
        """The number with which the next message of the epoch begins."""
        lost = self.gap.lost or 0 if self.gap is not None else 0
        return self.first_seq + self.frames + lost

    @property
    def message_id(self) -> str:
        """Two messages with the same frames have the same one."""
        names = map(encode_name, (*(self.bench or ()), self.channel))
        text = f"{self.epoch}:{'.'.join(names)}:{self.first_seq}"
        return text if self.gap is None else f"{text}:{self.gap.kind}"

    def headers(self) -> dict[str, str]:
        """As a NATS message has them."""
        made = {MESSAGE_ID: self.message_id, COUNT: str(self.frames), TIME: str(self.time_ns)}
        if self.gap is not None:
            made[GAP] = self.gap.kind
            made[LOST] = _UNKNOWN if self.gap.lost is None else str(self.gap.lost)
            made[REASON] = quote(self.gap.reason[:_MAX_REASON], safe=" ,;:()/'=+@")
        if self.offset:
            made[OFFSET] = str(self.offset)
        return made


def parse(headers: Mapping[str, str] | None) -> Head:
    """The headers of a message.

    :raises WireError: they are not those of a message of ours; says which one.
    """
    given = headers or {}
    parts = given.get(MESSAGE_ID, "").split(":")
    if len(parts) not in {3, 4} or not _is_number(parts[0]) or not _is_number(parts[2]):
        raise WireError(f"{MESSAGE_ID}: {given.get(MESSAGE_ID, '')[:200]!r} is not of ours")
    try:
        *bench, channel = map(decode_name, parts[1].split("."))
    except ValueError as error:
        raise WireError(f"{MESSAGE_ID}: {error}") from error
    if len(bench) not in {0, 2}:
        raise WireError(f"{MESSAGE_ID}: {given[MESSAGE_ID][:200]!r} is not of ours")
    count = number_of(given, COUNT)
    gap = _gap(given)
    if (parts[3] if len(parts) == 4 else None) != (None if gap is None else gap.kind):
        raise WireError(f"{MESSAGE_ID}: {given[MESSAGE_ID][:200]!r} and {GAP} contradict")
    if count > _MAX_COUNT or (count == 0) is (gap is None):
        raise WireError(f"{COUNT}: {count} frames in a message of this kind")
    offset = given.get(OFFSET, "0")
    if not _OFFSET.fullmatch(offset):
        raise WireError(f"{OFFSET}: {offset[:200]!r} is not a number")
    time_ns = number_of(given, TIME)
    return Head(
        *(int(parts[0]), channel, int(parts[2]), count, time_ns, gap, int(offset)),
        bench=(bench[0], bench[1]) if bench else None,
    )


def _gap(given: Mapping[str, str]) -> Gap | None:
    kind = given.get(GAP)
    if kind is None:
        return None
    if kind not in _GAPS:
        raise WireError(f"{GAP}: {kind[:200]!r} is none of {', '.join(_GAPS)}")
    lost = None if given.get(LOST) == _UNKNOWN else number_of(given, LOST)
    return Gap(kind, lost, unquote(given.get(REASON, ""))[:_MAX_REASON])


def number_of(given: Mapping[str, str], name: str) -> int:
    """The number in a header.

    :raises WireError: there is none.
    """
    text = given.get(name, "")
    if not _is_number(text):
        raise WireError(f"{name}: {text[:200]!r} is not a number")
    return int(text)


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and int(text) <= _MAX
