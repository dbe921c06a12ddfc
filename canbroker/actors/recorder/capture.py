"""When a triggered recording writes: from before the trigger to after it.

Pure: frames go in, and which of them are to be written comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from canbroker.actors.recorder.trigger import Condition
from canbroker.model.frame import EchoFrame
from canbroker.system import clock


class Stretch(NamedTuple):
    """Frames that follow each other, and whether they are written. ``began``: the first of them is
    the trigger; what was before it is to be written, too. ``ended``: nothing is written after
    them."""

    frames: list[EchoFrame]
    is_written: bool
    began: bool = False
    ended: bool = False


class Capture:
    """``until_ns``: frames are written up to this time, wall clock; 0 while nothing is."""

    def __init__(self, condition: Condition, after_s: float) -> None:
        self.until_ns = 0
        self._condition = condition
        self._after_ns = int(after_s * clock.SECOND)

    def split(self, frames: list[EchoFrame]) -> Iterator[Stretch]:
        """Yields the frames in stretches, in their order."""
        while frames:
            if not self.until_ns:
                at = next((at for at, each in enumerate(frames) if self._condition(each)), None)
                if at is None:
                    yield Stretch(frames, False)
                    return
                if at:
                    yield Stretch(frames[:at], False)
                frames = frames[at:]
                self.until_ns = frames[0].timestamp_ns + self._after_ns
                began = True
            else:
                began = False
            end = self._end(frames)
            ended = end < len(frames)
            if ended:
                self.until_ns = 0
            yield Stretch(frames[:end], True, began, ended)
            frames = frames[end:]

    def is_over(self, wall_ns: int) -> bool:
        """Whether writing is to end although no later frame has come; then it ends here."""
        over = bool(self.until_ns) and wall_ns > self.until_ns + clock.SECOND
        if over:
            self.until_ns = 0
        return over

    def _end(self, frames: list[EchoFrame]) -> int:
        """How many of the frames are written; another trigger among them prolongs that."""
        for at, frame in enumerate(frames):
            if frame.timestamp_ns > self.until_ns:
                return at
            if self._condition(frame):
                self.until_ns = max(self.until_ns, frame.timestamp_ns + self._after_ns)
        return len(frames)
