"""Error counters, as error frames report them."""

from __future__ import annotations

import pytest

from canbroker.model.error_counters import ErrorCounters, counters_in
from canbroker.model.frame import ERROR, Frame


@pytest.mark.parametrize(
    ("identifier", "flags", "data", "counters"),
    [
        (0x204, ERROR, b"\0\x08\0\0\0\0\x60\x0a", ErrorCounters(transmit=96, receive=10)),
        (0x200, ERROR, bytes(8), ErrorCounters(0, 0)),
        (0x004, ERROR, b"\0\x08\0\0\0\0\0\x80", ErrorCounters(0, 128)),
        (0x004, ERROR, bytes(8), None),
        (0x200, ERROR, b"", None),
        (0x200, 0, bytes(8), None),
    ],
)
def test_counters_are_in_the_last_two_bytes(
    identifier: int, flags: int, data: bytes, counters: ErrorCounters | None
) -> None:
    assert counters_in(Frame(0, identifier, flags, data)) == counters
