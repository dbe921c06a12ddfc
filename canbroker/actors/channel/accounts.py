"""What a client has asked the channel to transmit. Send thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from canbroker.backends import Transmit
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.transmit import Status


class Pending:
    """A request that is not answered because some of its frames have not ended."""

    __slots__ = (
        *("accepted", "failed", "forbidden", "reason", "remaining", "status", "timestamp_ns"),
        "token",
    )

    def __init__(self, token: int, frames: int, forbidden: Forbidden | None = None) -> None:
        self.token = token
        self.forbidden = forbidden
        self.remaining = frames
        self.accepted = 0
        self.timestamp_ns = 0
        self.status = Status.OK
        self.reason = ""
        self.failed: list[int] = []

    def fail(self, index: int, status: Status, reason: str) -> None:
        if not self.failed:
            self.status, self.reason = status, reason
        self.failed.append(index)


class Account:
    """One client's transmits: those that wait for the driver, and the unanswered requests."""

    def __init__(self, client_id: str, identity: bytes) -> None:
        self.client_id = client_id
        self.identity = identity
        self.waiting: deque[Transmit] = deque()
        self.scheduled: list[tuple[int, list[Transmit]]] = []  # by due time, monotonic ns
        self.unanswered: deque[Pending] = deque()
        self.outstanding = 0  # frames
        self.token = 0  # of the last request

    def fail(self, pending: Pending, indexes: Sequence[int], status: Status, reason: str) -> None:
        """Marks frames of a request as not sent."""
        for index in indexes:
            pending.fail(index, status, reason)
        pending.remaining -= len(indexes)
        self.outstanding -= len(indexes)
