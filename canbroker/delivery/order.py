"""Puts the frames of a route in order, each exactly once, and tracks which ones are missing.

Pure: batches and answers go in, frames come out. Values that belong together are assigned at once
(:mod:`canbroker.system.undisturbed`): wherever an exception strikes, each frame is either in
``frames`` and in the counters, or is found missing later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from canbroker.model.frame import EchoFrame

#: Frames kept behind a gap. Frames beyond this limit are dropped and requested afterwards.
MAX_HELD: Final = 32_768

#: Why frames are lost if nobody requests them.
SLOW: Final = "this program was slow"
REPLACED: Final = "the channel actor was replaced"


class Gap(msgspec.Struct, frozen=True):
    """Missing frames: numbers ``first`` up to, but not including, ``end``.

    ``end`` is ``None`` for the rest of an epoch that is over.
    """

    epoch: int
    first: int
    end: int | None


class Loss(msgspec.Struct, frozen=True):
    """Frames that will never arrive; ``frames`` is ``None`` if their number is unknown."""

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


class Place(NamedTuple):
    """Where a reader of a route has come to: the epoch, and the number of its next frame there."""

    epoch: int
    number: int


class Restart(msgspec.Struct, frozen=True):
    """The route began again at ``place``, after this many ``frames`` and ``losses``."""

    frames: int
    losses: int
    place: Place


#: Frames in order, the losses, each with the number of frames before it, and the restarts.
Taken: TypeAlias = tuple[list[EchoFrame], list[tuple[int, Loss]], list[Restart]]


class Part(msgspec.Struct, frozen=True):
    """A batch, or a heartbeat without frames: the frames, and the number of the first one."""

    epoch: int
    first: int
    frames: Sequence[EchoFrame]

    @property
    def end(self) -> int:
        return self.first + len(self.frames)


class Order:
    """The order of one route. One thread at a time.

    ``frames`` are ready to be handed over by :meth:`take`, as are ``losses`` (each with the number
    of ``frames`` before it) and ``restarted`` (where the route began again). ``gap``: the frames
    that are missing and should be requested; answer with :meth:`found` or :meth:`gone`.
    ``received``, ``lost``, ``repaired`` and ``restarts`` are counters. A route restarts with a new
    epoch, or when its connection was lost.
    """

    def __init__(self, *, repairs: bool) -> None:
        """``repairs``: missing frames will be requested. If false, they are lost at once."""
        self.frames: list[EchoFrame] = []
        self.losses: list[tuple[int, Loss]] = []
        self.restarted: list[Restart] = []
        self.gap: Gap | None = None
        self.epoch = 0
        self.received = 0
        self.lost = 0
        self.repaired = 0
        self.restarts = 0
        self._repairs = repairs
        self._expected = 0
        self._is_new = False  # no frame has come of this epoch, which replaced another one
        self._past = -1  # frames before this number came with the history
        self._held: list[Part] = []
        self._held_count = 0

    def __repr__(self) -> str:
        return f"<Order expected={self._expected} gap={self.gap} held={self._held_count}>"

    @property
    def place(self) -> Place:
        """Behind the last frame, loss or restart that was handed over or can be."""
        return Place(self.epoch, self._expected)

    def portion(self, at_most: int) -> int:
        """How many of the frames may be taken alone: all, if there are losses or restarts, too."""
        count = len(self.frames)
        return count if self.losses or self.restarted else min(count, at_most)

    def take(self, count: int | None = None) -> Taken:
        """Hands over the frames, losses and restarts so far, and starts with empty lists.

        ``count``: a :meth:`portion`, to hand over no more of the frames.

        An exception strikes before it changes anything, or not at all. The caller should prepare
        everything first, call this, and store the result without a call in between.
        """
        rest: list[EchoFrame] = [] if count is None else self.frames[count:]
        frames = self.frames[:count] if rest else self.frames
        taken = frames, self.losses, self.restarted
        # At once.
        self.frames = rest
        self.losses = []
        self.restarted = []
        return taken

    def begin(self, epoch: int, next_seq: int) -> None:
        """Starts with another route, whose next frame has this number."""
        is_restart = bool(self.epoch) and epoch != self.epoch
        place = Place(epoch, next_seq)
        restarted = [Restart(len(self.frames), len(self.losses), place)] if is_restart else []
        # At once.
        self.restarted += restarted
        self.restarts += is_restart
        self.epoch = epoch
        self._expected = next_seq
        self._is_new = False
        self._past = -1
        self._held = []
        self._held_count = 0
        self.gap = None

    def go_back(self, place: Place) -> None:
        """Continues at a place where a reader was before, also another process: what has come since
        is missing. Frames, losses and restarts that were not taken are forgotten."""
        newest = self.place
        # At once.
        self.frames = []
        self.losses = []
        self.restarted = []
        self.gap = None
        self.epoch, self._expected = place
        self._is_new = False
        self._past = -1
        self._held = []
        self._held_count = 0
        self.add(Part(newest.epoch, newest.number, ()))

    def remember(self, frames: list[EchoFrame], next_seq: int) -> None:
        """Puts frames in front that came before number ``next_seq`` of a route that just began."""
        newer = max(0, self._expected - next_seq)
        rest = self.frames[len(self.frames) - newer :]
        received = self.received + len(frames) + len(rest) - len(self.frames)
        expected = max(self._expected, next_seq)
        self.frames = frames + rest
        self.received = received
        self._expected = expected
        self._past = next_seq

    def add(self, part: Part) -> None:
        """Adds a part that has arrived."""
        if self.gap is not None:
            self._hold(part)
        elif part.epoch == self.epoch and part.first == self._expected:
            # The end of the part, without a call for each.
            self._deliver(part.frames, part.first + len(part.frames))
        else:
            self._follow(part)
        if self.gap is not None and not self._repairs:
            self.gone(REPLACED if self.gap.end is None or self._is_new else SLOW)

    def found(
        self, gap: Gap, first: int, frames: list[EchoFrame], *, complete: bool, then: int = 0
    ) -> None:
        """Adds the answer to a request for ``gap``: frames before ``first`` are gone.

        ``then``: the epoch that follows, at the end of one; 0: that of which we have heard.
        """
        if gap != self.gap:
            return
        count = len(frames)
        end = first + count
        over = complete or (gap.end is not None and end >= gap.end)
        rest = None if over else msgspec.structs.replace(gap, first=end)
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
        epoch = then if then and over and gap.end is None else self.epoch
        places = (at + count, len(self.losses) + len(losses), Place(epoch, 0))
        restarted = [Restart(*places)] if over and gap.end is None else []
        # At once.
        self.gap = rest
        self.epoch = epoch
        self.frames += frames
        self.losses += losses
        self.restarted += restarted
        self.received += count
        self.repaired += count
        self.lost += lost
        self._expected = expected
        if over:
            self._go_on()

    def gone(self, cause: str) -> None:
        """Gives up on the missing frames."""
        gap = self.gap
        if gap is None:
            return
        count = None if gap.end is None else gap.end - gap.first
        at = len(self.frames)
        told = at, Loss(gap.epoch, gap.first, count, cause)
        is_epoch_over = gap.end is None
        place = Place(self.epoch, 0)
        restarted = [Restart(at, len(self.losses) + 1, place)] if is_epoch_over else []
        expected = self._expected if gap.end is None else gap.end
        # At once.
        self.gap = None
        self.losses += (told,)
        self.restarted += restarted
        self.lost += count or 0
        self._expected = expected
        self._go_on()

    # ------------------------------------------------------------------------------ following

    def _follow(self, part: Part) -> None:
        """Adds a part that is not simply the next one."""
        if not self.epoch:
            self.begin(part.epoch, part.first)
            self.add(part)
        elif part.epoch != self.epoch:
            # Another actor has taken over. What its predecessor still had for us comes first.
            self._miss(Gap(self.epoch, self._expected, None), part)
        elif part.first > self._expected:
            self._miss(Gap(part.epoch, self._expected, part.first), part)
        elif self._expected == self._past:  # some of these came with the history
            frames = part.frames[self._expected - part.first :]
            self._deliver(frames, max(part.end, self._expected))
        else:
            # The connection was lost for a while, and with it an unknown number of frames.
            place = Place(part.epoch, part.first)
            restarted = [Restart(len(self.frames), len(self.losses), place)]
            # At once.
            self.restarted += restarted
            self.restarts += 1
            self._deliver(part.frames, part.end)

    def _miss(self, gap: Gap, following: Part) -> None:
        is_restarted = gap.end is None
        # At once. What an exception has left of another gap is found missing again.
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
            return  # a heartbeat without news
        count = self._held_count + max(1, len(part.frames))
        if count <= MAX_HELD:
            self._held += (part,)
            self._held_count = count

    def _go_on(self) -> None:
        """Delivers the parts held behind a gap, up to the next gap."""
        held = self._held
        self._held = []
        self._held_count = 0
        for part in held:
            self.add(part)

    def _deliver(self, frames: Sequence[EchoFrame], end: int) -> None:
        count = len(frames)
        # At once.
        self.frames += frames
        self.received += count
        self._expected = end
        self._is_new = False
