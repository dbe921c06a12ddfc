"""Which identifiers a table of the configuration lets others send."""

from __future__ import annotations

import msgspec

from canbroker.keys.authorized import IdentifierRange


class TransmitTable(msgspec.Struct, frozen=True, kw_only=True):
    """``transmit``: ranges of identifiers; none of them without it."""

    transmit: list[str] = []

    @property
    def ranges(self) -> tuple[IdentifierRange, ...]:
        """``transmit``.

        :raises ValueError: one of them is not a range; names the key.
        """
        try:
            return tuple(map(IdentifierRange.parse, self.transmit))
        except ValueError as error:
            raise ValueError(f"transmit: {error}") from error

    def may_transmit(self, identifier: int, extended: bool) -> bool:
        """Whether a frame with that identifier may be sent."""
        return any(each.has(identifier, extended) for each in self.ranges)
