"""Where a subscriber gets frames from, as it sees them."""

from __future__ import annotations

from typing import Any, Protocol

from canbroker.delivery.order import Order
from canbroker.model.frame import EchoFrame


class Stream(Protocol):
    """What a subscriber needs of :class:`canbroker.transport.stream_link.StreamLink`."""

    @property
    def socket(self) -> Any:
        """What an event loop watches."""

    def subscribe(self, topic: bytes) -> None: ...

    def unsubscribe(self, topic: bytes) -> None: ...

    def receive(self) -> tuple[bytes, bytes] | None: ...

    def readable(self) -> bool: ...

    def wait(self, timeout_ns: int | None, *others: Any) -> bool: ...

    def problem(self) -> str | None: ...

    def close(self) -> None: ...


class Archive(Protocol):
    """What a subscriber needs of :class:`canbroker.delivery.asker.Asker`."""

    #: Whether to keep it while nothing is missing: connecting to another host takes long.
    lasting: bool

    @property
    def socket(self) -> Any:
        """Readable when an answer has arrived."""

    def due_ns(self) -> int: ...

    def mend(self, order: Order, topic: bytes) -> bool: ...

    def history(
        self, topic: bytes, seconds: float, wake: Any, deadline: int | None
    ) -> tuple[list[EchoFrame], int] | None: ...

    def readable(self) -> bool: ...

    def wait(self, timeout_ns: int | None) -> None: ...

    def close(self) -> None: ...
