"""Which parts of a gap are asked for at a time, and in which order their answers are used. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from canbroker.delivery.order import Gap
from canbroker.wire.replay import MAX_REPLAYED, Replayed

#: Far away, an answer takes long, so several parts are asked for at a time. A gateway passes these
#: requests on one by one; a channel itself keeps only one for each connection.
FAR_AT_ONCE: Final = 16


class Stretch(msgspec.Struct, frozen=True):
    """Numbers ``first`` up to ``end`` of a gap; ``end`` as of a :class:`Gap`."""

    first: int
    end: int | None


class Window:
    """The requests for one gap that are under way. One thread at a time.

    Each is known by the number that it was sent with.
    """

    def __init__(self, at_once: int = 1) -> None:
        """``at_once``: the most requests under way."""
        self._at_once = at_once
        self._gap: Gap | None = None
        self._asked: deque[tuple[int, Stretch]] = deque()  # in order
        self._answers: dict[int, Replayed] = {}
        self._next: int | None = 0  # number from which nothing is asked for yet; None: all is

    def turn_to(self, gap: Gap) -> bool:
        """Turns to the frames that are missing now; returns whether they have changed.

        A part of the former gap may have been filled by :meth:`take`.
        """
        if gap == self._gap:
            return False
        known, self._gap = self._gap, gap
        is_rest = known is not None and (gap.epoch, gap.end) == (known.epoch, known.end)
        if not is_rest or not self._starts_at(gap):
            self.restart()
        return True

    def restart(self) -> None:
        """Forgets what is under way: it may have been lost."""
        self._asked.clear()
        self._answers.clear()
        self._next = None if self._gap is None else self._gap.first

    def wanted(self) -> Stretch | None:
        """What should be asked for next, if there is something."""
        gap = self._gap
        if gap is None or self._next is None or len(self._asked) >= self._at_once:
            return None
        if gap.end is None or self._at_once == 1:
            return Stretch(self._next, gap.end)
        return Stretch(self._next, min(gap.end, self._next + MAX_REPLAYED))

    def asked(self, number: int, stretch: Stretch) -> None:
        """What was :meth:`wanted` was asked for with this number."""
        self._asked.append((number, stretch))
        is_all = self._gap is None or stretch.end == self._gap.end
        self._next = None if is_all else stretch.end

    def is_awaited(self, number: int) -> bool:
        """Whether this request is under way, and has no answer yet."""
        return number not in self._answers and any(number == asked for asked, _ in self._asked)

    def answered(self, number: int, answer: Replayed) -> None:
        """The answer to a request that :meth:`is_awaited`."""
        self._answers[number] = answer

    def take(self) -> tuple[Stretch, Replayed] | None:
        """The answer that comes next in order, if it is there, and what it answers."""
        if not self._asked:
            return None
        number, stretch = self._asked[0]
        answer = self._answers.pop(number, None)
        if answer is None:
            return None
        self._asked.popleft()
        return stretch, answer

    def _starts_at(self, gap: Gap) -> bool:
        """Whether what is under way begins where ``gap`` does now."""
        if self._asked:
            return self._asked[0][1].first == gap.first
        return self._next == gap.first
