"""The clock of a channel's host, as far as a client has to know it.

Deadlines on the wire (``expires_ns``, ``due_ns``) are times of the monotonic clock of the host
that the channel and its scheduler run on. Clients count on their own monotonic clock, and convert
here.
"""

from __future__ import annotations

from typing import Final

#: Two clocks drift apart by less than one part in this many: quartz is good for 100 ppm.
_DRIFT: Final = 10_000

#: A connection that was cut is there again after five round trips, and a lost packet takes some.
_ROUND_TRIPS: Final = 8


class ChannelClock:
    """Converts between our monotonic clock and the channel's, in nanoseconds.

    Any thread may convert; one at a time may :meth:`note` and :meth:`begin`.

    On the same host they are one clock, and nothing is estimated. On another host, the difference
    comes from states that the channel has stamped, and from the broker's answer to ``hello``. A
    state arrives late, never early, so the least difference is the best estimate; half of a round
    trip is taken off it.
    """

    def __init__(self, *, is_ours: bool, round_trip_ns: int = 0) -> None:
        """``is_ours``: the channel runs on this host. ``round_trip_ns``: how long a message takes
        there and back."""
        self._round_trip_ns = round_trip_ns
        self._is_ours = is_ours
        self._ahead_ns = 0  # what our clock shows more than the channel's
        self._noted_ns: int | None = None  # our time of the last state

    @property
    def far_ns(self) -> int:
        """How much more patience a channel over there deserves than one of this host."""
        return _ROUND_TRIPS * self._round_trip_ns

    def set(self, said_ns: int, ours_ns: int) -> None:
        """Starts from a measurement: the channel's clock showed ``said_ns`` at ``ours_ns``."""
        self._ahead_ns = ours_ns - said_ns
        self._noted_ns = ours_ns

    def begin(self) -> None:
        """Forgets the difference: the channel may have moved, or its host was booted again."""
        self._ahead_ns = 0
        self._noted_ns = None

    def note(self, said_ns: int, received_ns: int) -> None:
        """Learns from a state that the channel stamped ``said_ns`` on its clock (0: it did not),
        and that we received at ``received_ns`` on ours."""
        if self._is_ours or not said_ns:
            return
        ahead = received_ns - said_ns - self._round_trip_ns // 2
        if self._noted_ns is not None:  # the state may have waited for long until it was received
            drift = max(0, received_ns - self._noted_ns) // _DRIFT
            ahead = min(ahead, self._ahead_ns + drift)
        self._ahead_ns = ahead
        self._noted_ns = received_ns

    def deadline(self, ours_ns: int) -> int:
        """Converts our deadline to the channel's clock. 0 means that there is none, and stays 0."""
        return max(1, ours_ns - self._ahead_ns) if ours_ns else 0

    def ours(self, said_ns: int) -> int:
        """A time of the channel's clock on ours."""
        return said_ns + self._ahead_ns
