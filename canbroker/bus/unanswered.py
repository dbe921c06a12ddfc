"""A request to transmit that is under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from canbroker.bus.failure import Failure
from canbroker.model.frame import Frame

#: Called for each frame that was not sent: why, and whether it has just expired.
Failed: TypeAlias = Callable[[Failure, bool], None]


class Unanswered:
    """A request without an answer, until it is ``answered``.

    ``failures`` are for the caller that waits for it (``awaited``); ``failed`` is called with them.
    ``asks``: its frame is never sent, and counts as none; it asks for the answers before its own.
    """

    __slots__ = (
        *("answered", "asks", "awaited", "count", "expired", "failed", "failures", "frames"),
        "token",
    )

    def __init__(
        self, token: int, frames: Sequence[Frame], failed: Failed | None, *, asks: bool = False
    ) -> None:
        self.failed = failed
        self.asks = asks
        self.token = token
        self.frames = frames
        self.count = 0 if asks else len(frames)
        self.answered = False
        self.awaited = False
        self.expired = False
        self.failures: list[Failure] = []
