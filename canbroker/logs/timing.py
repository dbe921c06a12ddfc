"""When each frame of a log is due when the log is replayed."""

from __future__ import annotations

from typing import Final

from canbroker.system import clock

#: A larger step back means that the clock was set. Several adapters' frames may be out of order.
MAX_DISORDER_NS: Final = 100 * clock.MILLISECOND

#: A longer pause means that the clock was set.
_MAX_PAUSE_NS: Final = 24 * 3600 * clock.SECOND

#: Longer than anyone waits; a sleep's duration has 63 bits.
_FOREVER_NS: Final = 2**62

#: The pause between a log's last frame and its first one when the log is repeated.
_LOOP_GAP_NS: Final = clock.MILLISECOND


class RecordedTime:
    """Calculates when each frame of a log is due, in nanoseconds after the first one.

    If the recording clock steps back, timing starts again, as with canplayer: the next frame
    follows at once, and later ones keep their distance from it. The same happens if the clock
    steps forward by more than a day, as when a computer without a battery-backed clock learns the
    date. Frames that are only slightly out of order, as in a merged log, keep their order.

    :param speed: how many times as fast as recorded; 0 makes everything due at once.
    :param longest_pause_ns: recorded time between two frames; a longer one is cut to this.
    """

    def __init__(self, speed: float, longest_pause_ns: int | None = None) -> None:
        self._speed = speed
        self._longest_pause_ns = longest_pause_ns
        self._origin_ns: int | None = None  # the time stamp of the frame that is due at 0
        self._first_ns = 0  # likewise, if no pause had been cut
        self._latest_ns = 0
        self._begun_ns = 0  # when this reading of the log started

    @property
    def is_paced(self) -> bool:
        """Whether frames have due times; otherwise each one is due at once."""
        return self._speed > 0

    @property
    def elapsed_ns(self) -> int:
        """Recorded time from the log's first frame to the latest one, pauses included."""
        return self._latest_ns - self._first_ns

    def due_ns(self, timestamp_ns: int) -> int:
        """When the next frame is due; call it for each frame in the order of the log."""
        if self._origin_ns is None:
            self._origin_ns = self._first_ns = self._latest_ns = timestamp_ns
            return self._begun_ns
        step_ns = timestamp_ns - self._latest_ns
        if not -MAX_DISORDER_NS <= step_ns <= _MAX_PAUSE_NS:
            self._origin_ns += step_ns
            self._first_ns += step_ns
            self._latest_ns = timestamp_ns
        elif step_ns > 0:
            if self._longest_pause_ns is not None:
                self._origin_ns += max(0, step_ns - self._longest_pause_ns)
            self._latest_ns = timestamp_ns
        return self._begun_ns + self._offset_ns()

    def restart(self) -> None:
        """Repeats the log, one millisecond after its last frame unless ``speed`` is 0."""
        self._begun_ns += self._offset_ns() + (_LOOP_GAP_NS if self._speed else 0)
        self._origin_ns = None

    def _offset_ns(self) -> int:
        if not self._speed or self._origin_ns is None:
            return 0
        return round(min((self._latest_ns - self._origin_ns) / self._speed, _FOREVER_NS))


class EvenTime:
    """When each frame is due that follows the one before it at a fixed distance."""

    def __init__(self, gap_ns: float) -> None:
        self._gap_ns = gap_ns
        self._count = 0

    @property
    def is_paced(self) -> bool:
        """As :attr:`RecordedTime.is_paced`."""
        return self._gap_ns > 0

    def due_ns(self, _timestamp_ns: int) -> int:
        """When the next frame is due, in nanoseconds after the first one."""
        self._count += 1
        return round((self._count - 1) * self._gap_ns)

    def restart(self) -> None:
        """The log starts again, at the same distance from its last frame."""
