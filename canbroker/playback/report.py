"""What became of a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from canbroker.system import clock

_STEP_NS: Final = 10 * clock.MICROSECOND

#: Later frames are counted together, which bounds the memory.
_MAX_STEPS: Final = 10_000


class Lateness:
    """How late frames were, in steps of 10 µs up to 100 ms; of any number of frames."""

    def __init__(self) -> None:
        self.latest_ns = 0
        self.worst_ns = 0
        self._counts: Counter[int] = Counter()

    def add(self, late_ns: int) -> None:
        self.latest_ns = late_ns
        self.worst_ns = max(self.worst_ns, late_ns)
        self._counts[min(max(late_ns, 0) // _STEP_NS, _MAX_STEPS)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that a ``share`` (0 to 1) of the frames did not exceed; ``None``: no frames."""
        left = share * self._counts.total()
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left <= 0:
                late_ns = self.worst_ns if step == _MAX_STEPS else (step + 1) * _STEP_NS
                return min(late_ns, max(self.worst_ns, 0)) / clock.SECOND
        return None


class Progress(NamedTuple):
    """How far a replay has come.

    ``position``: seconds of the recording, from its first frame. ``share``: of the file that was
    read, 0 to 1; ``None`` if it is not known, as of a pipe. ``sent``: frames handed to channels.
    ``late``: seconds by which the last known frame was taken later than it was due.
    """

    position: float
    share: float | None
    sent: int
    late: float


@dataclass(frozen=True)
class ReplayReport:
    """The account of a replay.

    ``sent``: frames that adapters have taken. ``unsent``: numbers of those that were not sent, by
    what they are, in one reading of the log. ``faults``: sentences about what in the file was not a
    frame, or not readable. ``taken_back``: frames that were waiting when the replay was stopped,
    and were not sent. ``late_p50`` and the others: seconds from when frames were due until the
    adapter took them; ``None`` if none had a due time. ``duration``: seconds.
    """

    sent: int
    unsent: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    stopped: bool = False
    taken_back: int = 0
    duration: float = 0.0
    late_p50: float | None = None
    late_p99: float | None = None
    late_max: float | None = None

    def lines(self) -> list[str]:
        """Sentences about what was not sent; empty if everything was."""
        lines = [*self.faults]
        lines += [f"{count:,} {what} are not sent" for what, count in self.unsent.items()]
        if self.stopped:
            late = (
                ""
                if self.late_p99 is None
                else f", 99 % of them within {self.late_p99 * 1e3:.2f} ms"
            )
            lines.append(
                f"stopped after {self.duration:.1f} s: {self.sent:,} frames were sent{late};"
                f" {self.taken_back:,} that were waiting were taken back"
            )
        return lines
