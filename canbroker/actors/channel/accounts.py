"""What the clients of a channel have asked it to transmit. Send thread."""

from __future__ import annotations

from collections import deque

from canbroker.backends import Transmit
from canbroker.wire.transmit import Status


class Pending:
    """A request whose frames have not all ended."""

    __slots__ = ("accepted", "failed", "reason", "remaining", "status", "timestamp_ns", "token")

    def __init__(self, token: int, frames: int) -> None:
        self.token = token
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
    """One client's transmits: what waits for the driver, and what is not answered."""

    def __init__(self, client_id: str, identity: bytes) -> None:
        self.client_id = client_id
        self.identity = identity
        self.waiting: deque[Transmit] = deque()
        self.kept: list[tuple[int, list[Transmit]]] = []  # until then, in that order
        self.unanswered: deque[Pending] = deque()
        self.outstanding = 0  # frames
        self.token = 0  # of the last request
