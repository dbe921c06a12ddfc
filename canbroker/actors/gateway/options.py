"""Where a gateway listens: the ``[remote]`` table."""

from __future__ import annotations

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.transport.address import TcpAddress, parse_listen


class GatewayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``[remote]`` table. ``listen``: where remote clients connect; ``None``: nowhere."""

    listen: str | None = None

    def __post_init__(self) -> None:
        try:
            _ = self.address
        except CanInitializationError as error:
            raise ValueError(f"listen: {error}") from error

    @property
    def address(self) -> TcpAddress | None:
        """``listen``, which is valid."""
        return None if self.listen is None else parse_listen(self.listen)
