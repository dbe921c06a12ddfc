"""What a client has asked the channel to transmit. Send thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from canbroker.backends import Transmit
from canbroker.system import clock
from canbroker.wire.forbidden import Forbidden
from canbroker.wire.transmit import Status

#: An answer that its client does not wait for comes this long after the one before, with those that
#: have become due meanwhile: when a frame ends then, or at the latest when twice that is over.
_APART_NS: Final = 5 * clock.MILLISECOND

#: An answer for this many frames is given at once.
_FRAMES: Final = 64


class Pending:
    """A request that is not answered because some of its frames have not ended."""

    __slots__ = (
        *("accepted", "failed", "forbidden", "reason", "remaining", "status", "timestamp_ns"),
        *("token", "unhurried"),
    )

    def __init__(
        self,
        token: int,
        frames: int,
        forbidden: Forbidden | None = None,
        *,
        unhurried: bool = False,
    ) -> None:
        self.token = token
        self.unhurried = unhurried  # its client does not wait for the answer
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
        self.answered_ns = 0

    @property
    def answer_ns(self) -> int:
        """When an answer that may wait is due at the latest."""
        return self.answered_ns + 2 * _APART_NS

    def may_wait(self, now_ns: int) -> bool:
        """Whether there are answers, and none of them has to be given now."""
        if now_ns - self.answered_ns >= _APART_NS:
            return False
        frames = 0
        for pending in self.unanswered:
            if pending.remaining:
                break
            if not pending.unhurried or pending.failed:
                return False
            frames += pending.accepted
            if frames >= _FRAMES:
                return False
        return frames > 0

    def fail(self, pending: Pending, indexes: Sequence[int], status: Status, reason: str) -> None:
        """Marks frames of a request as not sent."""
        for index in indexes:
            pending.fail(index, status, reason)
        pending.remaining -= len(indexes)
        self.outstanding -= len(indexes)
