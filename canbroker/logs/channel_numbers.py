"""Numbers for channels, in formats that have no names."""

from __future__ import annotations

import re


class ChannelNumbers:
    """The number of each channel, as formats have them that number channels from 1.

    A channel that is called by a number keeps it; ``can0`` is channel 1, as python-can has it. All
    others get the lowest one that is free.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, channel: str) -> int:
        number = self._numbers.get(channel)
        if number is None:
            taken = set(self._numbers.values())
            number = _own_number(channel)
            if number is None or number in taken:
                number = next(free for free in range(1, len(taken) + 2) if free not in taken)
            self._numbers[channel] = number
        return number


def _own_number(channel: str) -> int | None:
    """The number that a channel's name says, if it fits all formats."""
    match = re.fullmatch(r"(\D*)([0-9]{1,3})", channel)
    if match is None:
        return None
    number = int(match[2]) + bool(match[1])
    return number if 1 <= number <= 255 else None
