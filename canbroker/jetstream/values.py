"""Last values: the state of a channel as its bridge sees it, and the value of a signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

import msgspec

from canbroker.jetstream.heads import TIME, number_of
from canbroker.wire import DECODE_ERRORS, WireError
from canbroker.wire.stream import StateEvent, decode_event, encode_event

#: For how many milliseconds frames have been on their way, and how many are lost in all.
LAG: Final = "Can-Lag-Ms"
TOTAL_LOST: Final = "Can-Lost-Total"

#: States are repeated after this time at the latest. A bench whose state is three times as old is
#: gone.
REPEAT_S: Final = 10.0


class BenchState(NamedTuple):
    """``time_ns``: when it was published, by the wall clock of the bench. ``lag_ms``: for how long
    the oldest frame waits that the server has not acknowledged. ``lost``: frames of the channel
    that its bridge has counted as lost since it began."""

    time_ns: int
    epoch: int
    state: StateEvent
    lag_ms: int = 0
    lost: int = 0

    def headers(self) -> dict[str, str]:
        """As the message has them."""
        return {TIME: str(self.time_ns), LAG: str(self.lag_ms), TOTAL_LOST: str(self.lost)}

    def body(self) -> bytes:
        """The event of protocol 1."""
        return encode_event(self.epoch, self.state)


def parse_state(headers: Mapping[str, str] | None, body: bytes) -> BenchState:
    """:raises WireError: the message is not a state."""
    given = headers or {}
    event = decode_event(body)
    if not isinstance(event.payload, StateEvent):
        raise WireError("state: it is another event")
    numbers = [number_of(given, name) for name in (TIME, LAG, TOTAL_LOST)]
    return BenchState(numbers[0], event.epoch, event.payload, *numbers[1:])


class Sample(msgspec.Struct, frozen=True):
    """The value of a signal, in ``unit``. ``label``: what the database calls it. ``time_ns``: of
    the frame."""

    time_ns: Annotated[int, msgspec.Meta(ge=0)]
    value: float | int | str
    label: str | None = None
    unit: str = ""

    def headers(self) -> dict[str, str]:
        """As the message has them."""
        return {TIME: str(self.time_ns)}

    def body(self) -> bytes:
        """As the message has it, in MessagePack."""
        return msgspec.msgpack.encode(self)


_samples: Final = msgspec.msgpack.Decoder(Sample)


def parse_sample(body: bytes) -> Sample:
    """:raises WireError: it is not the value of a signal."""
    try:
        return _samples.decode(body)
    except DECODE_ERRORS as error:
        raise WireError(f"signal: {error}") from error
