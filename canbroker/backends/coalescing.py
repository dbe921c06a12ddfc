"""How long an adapter that has much to say is left alone, so that it is read less often."""

from __future__ import annotations

from typing import Final

from canbroker.system import clock

#: The longest that a channel may leave its adapter unread: far less than any buffer holds.
MAX_COALESCE_US: Final = 2_000

#: Frames that come faster than this, on average, are read together.
_DENSE_NS: Final = 250 * clock.MICROSECOND

#: A longer pause counts as this much. It ends the coalescing, whatever was before.
_PAUSE_NS: Final = 8 * _DENSE_NS

#: Each read has a weight of one in this many in the average.
_READS: Final = 8

#: How soon an answer may follow a frame that a client has sent.
_ANSWER_NS: Final = 2 * clock.MILLISECOND


class Coalescing:
    """Decides after each read of an adapter when to read it again, as network cards do.

    Frames that come in quick succession are read together: waking up for a frame costs several
    times as much as reading it. Frames that come alone are read at once, and so is what follows a
    client's frame, as it may be the answer. Never waits itself. Times are monotonic ns.

    One thread reads; any thread calls :meth:`expect`.
    """

    def __init__(self, wait_ns: int) -> None:
        """``wait_ns``: how long the adapter is left unread at most; 0: not at all."""
        self.pauses = 0  # so far
        self._wait_ns = wait_ns
        self._mean_ns = float(_PAUSE_NS)  # between frames
        self._read_ns = 0
        self._answer_ns = 0  # until then an answer may come
        self._pauses = False  # since the last read

    def pause_ns(self, frames: int, now_ns: int, *, urgent: bool) -> int:
        """How long to leave the adapter unread after a read of ``frames`` frames at ``now_ns``.
        ``urgent``: what comes next must not wait, as frames of clients wait for it."""
        if not self._wait_ns or not frames:
            self._pauses = False
            return 0
        passed_ns = min(now_ns - self._read_ns, _PAUSE_NS)
        self._read_ns = now_ns
        self._mean_ns += (passed_ns / frames - self._mean_ns) / _READS
        is_dense = self._mean_ns < _DENSE_NS
        self._pauses = is_dense and not urgent and now_ns >= self._answer_ns
        self.pauses += self._pauses
        return self._wait_ns if self._pauses else 0

    def left_ns(self, now_ns: int) -> int:
        """For how long the adapter has been left unread; 0 if it was not."""
        return now_ns - self._read_ns if self._pauses else 0

    def expect(self, now_ns: int) -> bool:
        """[any thread] A client has sent a frame, and may wait for an answer. Returns whether the
        adapter is left unread at the moment, which has to end now."""
        if self._wait_ns:
            self._answer_ns = now_ns + _ANSWER_NS
        return self._pauses
