"""Puts a route's frames in order, each once: knows what is missing, and waits for it.

Pure: batches and answers in, frames out. Everything here is written so that a signal handler may
raise anywhere: what belongs together is assigned without a call in between. A frame is then either
in ``frames`` and the account, or will be found missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from canbroker.model.frame import EchoFrame

#: Frames that are kept behind a gap. What comes beyond is dropped, and asked for afterwards.
MAX_HELD: Final = 32_768

#: Why frames are lost that nobody asks for.
SLOW: Final = "this program was slow"
REPLACED: Final = "the channel actor was replaced"


class Gap(NamedTuple):
    """Frames with the numbers from ``first`` to before ``end`` that have not come.

    ``end`` is ``None`` for the rest of an epoch that is over.
    """

    epoch: int
    first: int
    end: int | None


class Loss(NamedTuple):
    """Frames that will not come any more; ``frames`` is ``None`` if nobody knows how many."""

    epoch: int
    first: int
    frames: int | None
    cause: str

    def __str__(self) -> str:
        if self.frames is None:
            return f"frames from number {self.first} of epoch {self.epoch} on lost: {self.cause}"
        last = self.first + self.frames - 1
        numbers = f"numbers {self.first} to {last} of epoch {self.epoch}"
        return f"{self.frames} frames lost ({numbers}): {self.cause}"


class Part(NamedTuple):
    """A batch, or where a route stands: the frames, and the number of the first one."""

    epoch: int
    first: int
    frames: Sequence[EchoFrame]

    @property
    def end(self) -> int:
        return self.first + len(self.frames)


class Order:
    """The order of one route. One thread at a time.

    ``frames`` are those that are next; who takes them over puts an empty list there, and into
    ``losses`` too: each tells before how many of the ``frames`` it was. ``gap``: what is missing
    and to be asked for; told of with :meth:`found` or :meth:`gone`. ``received``, ``lost``,
    ``repaired``, ``restarts`` (the route began anew: a new epoch, or a connection that was lost)
    are the account.
    """

    def __init__(self, *, repairs: bool) -> None:
        """``repairs``: somebody will ask for what is missing. Else it is lost at once."""
        self.frames: list[EchoFrame] = []
        self.losses: list[tuple[int, Loss]] = []
        self.gap: Gap | None = None
        self.epoch = 0
        self.received = 0
        self.lost = 0
        self.repaired = 0
        self.restarts = 0
        self._repairs = repairs
        self._expected = 0
        self._is_new = False  # nothing has come of this epoch, which has replaced another one
        self._past = -1  # numbers before it were handed out with the history
        self._held: list[Part] = []
        self._held_count = 0

    def __repr__(self) -> str:
        return f"<Order expected={self._expected} gap={self.gap} held={self._held_count}>"

    def begin(self, epoch: int, next_seq: int) -> None:
        """Starts with another route, whose next frame has this number."""
        restarted = bool(self.epoch) and epoch != self.epoch
        self.restarts += restarted
        self.epoch = epoch
        self._expected = next_seq
        self._is_new = False
        self._past = -1
        self._held = []
        self._held_count = 0
        self.gap = None

    def remember(self, frames: list[EchoFrame], next_seq: int) -> None:
        """Puts frames in front that are older than number ``next_seq`` of the route, which has
        just begun."""
        newer = max(0, self._expected - next_seq)
        rest = self.frames[len(self.frames) - newer :]
        received = self.received + len(frames) + len(rest) - len(self.frames)
        expected = max(self._expected, next_seq)
        self.frames = frames + rest
        self.received = received
        self._expected = expected
        self._past = next_seq

    def add(self, part: Part) -> None:
        """Takes what has arrived."""
        if self.gap is not None:
            self._hold(part)
        elif part.epoch == self.epoch and part.first == self._expected:
            self._deliver(part.frames, part.end)
        else:
            self._follow(part)
        if self.gap is not None and not self._repairs:
            self.gone(REPLACED if self.gap.end is None or self._is_new else SLOW)

    def found(self, gap: Gap, first: int, frames: list[EchoFrame], *, complete: bool) -> None:
        """Takes an answer for ``gap``: what was before ``first`` is gone."""
        if gap != self.gap:
            return
        count = len(frames)
        end = first + count
        over = complete or (gap.end is not None and end >= gap.end)
        rest = None if over else gap._replace(first=end)
        at = len(self.frames)
        losses: list[tuple[int, Loss]] = []
        if first > gap.first:
            cause = "the channel does not have them any more"
            losses.append((at, Loss(gap.epoch, gap.first, first - gap.first, cause)))
        expected = end if gap.epoch == self.epoch else self._expected
        if over and gap.end is not None and end < gap.end:
            cause = "the channel does not know them"
            losses.append((at + count, Loss(gap.epoch, end, gap.end - end, cause)))
            expected = gap.end
        lost = sum(loss.frames or 0 for _, loss in losses)
        # No call from here on: an exception strikes before all of it, or after.
        self.gap = rest
        self.frames += frames
        self.losses += losses
        self.received += count
        self.repaired += count
        self.lost += lost
        self._expected = expected
        if over:
            self._go_on()

    def gone(self, cause: str) -> None:
        """What is missing will not come."""
        gap = self.gap
        if gap is None:
            return
        count = None if gap.end is None else gap.end - gap.first
        told = len(self.frames), Loss(gap.epoch, gap.first, count, cause)
        expected = self._expected if gap.end is None else gap.end
        # As above.
        self.gap = None
        self.losses += (told,)
        self.lost += count or 0
        self._expected = expected
        self._go_on()

    # ------------------------------------------------------------------------------ following

    def _follow(self, part: Part) -> None:
        """Takes a part that is not simply the next one."""
        if not self.epoch:
            self.begin(part.epoch, part.first)
            self.add(part)
        elif part.epoch != self.epoch:
            # Another actor goes on. What its predecessor still had for us comes first.
            self._miss(Gap(self.epoch, self._expected, None), part)
        elif part.first > self._expected:
            self._miss(Gap(part.epoch, self._expected, part.first), part)
        elif self._expected == self._past:  # some of these came with the history
            frames = part.frames[self._expected - part.first :]
            self._deliver(frames, max(part.end, self._expected))
        else:
            # The connection was lost for a while and the route with it. How much, nobody knows.
            self.restarts += 1
            self._deliver(part.frames, part.end)

    def _miss(self, gap: Gap, following: Part) -> None:
        is_restarted = gap.end is None
        # As above. What an exception has left of another gap is found missing once more.
        self.gap = gap
        self._held = []
        self._held_count = 0
        if is_restarted:
            self.epoch = following.epoch
            self._expected = 0
            self._is_new = True
            self._past = -1
            self.restarts += 1
        self._hold(following)

    def _hold(self, part: Part) -> None:
        last = self._held[-1] if self._held else None
        if (
            last is not None
            and not part.frames
            and (part.epoch, part.first)
            == (
                last.epoch,
                last.end,
            )
        ):
            return  # a heartbeat that says nothing new
        count = self._held_count + max(1, len(part.frames))
        if count <= MAX_HELD:
            self._held += (part,)
            self._held_count = count

    def _go_on(self) -> None:
        """Takes what was held behind a gap, up to the next one."""
        held = self._held
        self._held = []
        self._held_count = 0
        for part in held:
            self.add(part)

    def _deliver(self, frames: Sequence[EchoFrame], end: int) -> None:
        count = len(frames)
        # No call from here on: an exception strikes before all of it, or after.
        self.frames += frames
        self.received += count
        self._expected = end
        self._is_new = False
