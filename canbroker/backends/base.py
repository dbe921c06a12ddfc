"""The boundary between a channel actor and an adapter family.

A backend *is* an open adapter: opening returns one, or raises and leaves nothing behind. The
actor's two threads use it. The send thread hands frames over; the recv thread reads what happened:
received frames and finished transmits, in the one order of the bus.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from canbroker.backends.coalescing import MAX_COALESCE_US, Coalescing
from canbroker.errors import CanOperationError
from canbroker.model.error_counters import ErrorCounters
from canbroker.model.filters import FilterSet
from canbroker.model.frame import ERROR, FD, HARDWARE_TIMESTAMP, Frame, frame_fault
from canbroker.system import clock

LISTEN_ONLY = "the channel is listen-only"

#: A time that has passed. The present would not do: who compares it has read the clock before.
AT_ONCE: Final = 0


class AdapterGoneError(CanOperationError):
    """The adapter can no longer be used: unplugged, hung, closed by the driver.

    The actor closes the backend, fails what was in flight, and tries to open it again.
    """


class Options(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The parameters of one channel. Each backend extends it with its own parameters.

    Values are checked in ``__post_init__`` (:class:`ValueError` naming the parameter), before
    any device is touched.
    """

    #: Parameters that identify the adapter, besides ``channel``.
    identifying: ClassVar[frozenset[str]] = frozenset()
    #: Parameters of python-can's driver that are accepted without effect.
    without_effect: ClassVar[frozenset[str]] = frozenset()
    #: Names of parameters in python-can's driver -> canbroker's names.
    renamed: ClassVar[dict[str, str]] = {}
    #: Parameters of python-can's driver that are rejected -> what to do instead.
    instead: ClassVar[dict[str, str]] = {}
    #: ``coalesce_us`` if it is not given.
    usual_coalesce_us: ClassVar[int] = 800

    channel: str
    #: Frames in quick succession may wait this long, to be read together; ``None``: as is usual for
    #: the interface, 0: not at all.
    coalesce_us: int | None = None

    def __post_init__(self) -> None:
        if self.coalesce_us is not None and not 0 <= self.coalesce_us <= MAX_COALESCE_US:
            raise ValueError(f"coalesce_us must be 0 to {MAX_COALESCE_US}, got {self.coalesce_us}")

    @property
    def coalesce_ns(self) -> int:
        """``coalesce_us`` as it applies, in nanoseconds."""
        asked = self.coalesce_us
        return (self.usual_coalesce_us if asked is None else asked) * clock.MICROSECOND

    def written(self) -> dict[str, Any]:
        """The parameters as a user writes them: each one that has a value, by its name."""
        return {
            key: value for key, value in msgspec.structs.asdict(self).items() if value is not None
        }

    @property
    def identity(self) -> str:
        """Identifies the adapter: two channels with the same identity would open the same one."""
        return self.channel


class Transmit:
    """One frame on its way to the bus. :meth:`Backend.read` returns it when it is sent or failed.

    The actor creates it. The backend only sets ``timestamp_ns`` (wall clock, when the adapter
    accepted the frame) or ``failure`` (a sentence). With a ``failure`` it also sets ``unknown`` if
    the driver accepted the frame and did not report what happened to it: it may have been sent.
    """

    __slots__ = (
        "expires_ns",
        "failure",
        "frame",
        "origin",
        "queued_ns",
        "request",
        "sender",
        "timestamp_ns",
        "unknown",
    )

    def __init__(
        self,
        frame: Frame,
        sender: str,
        request: Any,
        queued_ns: int,
        expires_ns: int = 0,
        origin: str | None = None,
    ) -> None:
        self.frame = frame
        self.sender = sender  # the client that queued it, in whose turn it is sent
        self.origin = origin or sender  # the client whose frame it is; the scheduler sends for many
        self.request = request  # for the actor: the request that the frame belongs to
        self.queued_ns = queued_ns  # monotonic
        self.expires_ns = expires_ns  # monotonic; 0 is never
        self.timestamp_ns = 0
        self.failure: str | None = None
        self.unknown = False

    def __repr__(self) -> str:
        return f"<Transmit {self.frame!r} from {self.origin}>"


#: Identifies a task that a driver repeats: its client, and its number within the client.
RepeatKey = tuple[str, int]


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    """Frames that a driver should send by itself: ``frames`` in turn, one every ``period_ns``.

    ``due_ns``: when one of them is due, on the monotonic clock; all others are due whole periods
    before or after it.
    """

    key: RepeatKey
    frames: Sequence[Frame]
    period_ns: int
    due_ns: int


class BusCondition(NamedTuple):
    """What an open adapter's controller reports about its bus.

    ``off``: nothing can be sent or received until this is over. ``reason`` may also describe a less
    serious condition (error passive); it is empty if all is well.
    """

    off: bool = False
    reason: str = ""


class StampClock(NamedTuple):
    """How well a clock that stamps frames is known, other than the host's own.

    ``drift_ppb``: what the host's clock gains on it, in billionths. ``error_ns``: time stamps are
    this close to the host's clock, apart from the adapter's least latency, which cannot be
    measured.
    """

    drift_ppb: int
    error_ns: int


class Backend(ABC):
    """An open adapter.

    Thread of each method: *send* and *recv* are the actor's two threads, of which one at a time
    works, each also for the other one; while a backend that :attr:`blocks` sends, the recv thread
    goes on. *any* is any thread.
    """

    supports_error_frames: ClassVar[bool] = False
    #: Whether a frame may bring its own time stamp (flag 64). On a real bus it would be false.
    keeps_timestamps: ClassVar[bool] = False

    #: A line that describes the adapter for people: name, version, serial number.
    info: str = ""
    #: Whether the driver can :meth:`repeat` frames by itself.
    repeats: bool = False

    #: When the actor reads it again after a read. By default at once: what the driver collects
    #: itself, or must be read at once, is left to it.
    coalescing: Coalescing = Coalescing(0)
    #: Whether frames have ended when :meth:`send` returns. It does not make the descriptor readable
    #: then, so the thread that sends also reads.
    immediate: bool = False
    #: Whether :meth:`send` may wait for the adapter.
    blocks: ClassVar[bool] = False

    #: The options for opening a lost adapter again, if they differ from the original ones.
    reopening: Options | None = None

    #: Bit rates in bit/s, if the backend knows them.
    bitrate: int | None = None
    data_bitrate: int | None = None
    #: Whether FD frames can be sent.
    fd: bool = False
    listen_only: bool = False
    #: Frames lost before the backend saw them, as far as the driver reports them; cumulative.
    dropped: int = 0
    #: The controller's last report; :meth:`read` replaces it, any thread may read it.
    condition: BusCondition = BusCondition()

    @abstractmethod
    def fileno(self) -> int:
        """[any] A descriptor that is readable while :meth:`read` has something to return, other
        than what an :attr:`immediate` backend was sent."""

    @abstractmethod
    def read(self) -> Sequence[Frame | Transmit]:
        """[recv] Everything that happened since the last call, in bus order. Does not block.

        Each :class:`Transmit` is returned exactly once, whether it was sent or failed. A frame that
        the driver has repeated is an :class:`EchoFrame` with its client as ``origin``.

        :raises AdapterGoneError: the adapter is lost. Frames read before are returned first.
        """

    def due_ns(self) -> int | None:
        """[recv] Monotonic time at which :meth:`read` must be called even if the descriptor is not
        readable (the deadline of an acknowledgement, for example); ``None``: no such time;
        :data:`AT_ONCE`: there is something to read already."""
        return None

    @abstractmethod
    def room(self, sender: str) -> int:
        """[send] How many more frames of this client :meth:`send` accepts now."""

    @abstractmethod
    def send(self, transmits: Sequence[Transmit]) -> None:
        """[send] Hands frames to the driver, in order; at most :meth:`room` of one client.

        :raises AdapterGoneError: the adapter is lost; ``abandon`` returns the frames.
        """

    @abstractmethod
    def abandon(self) -> Sequence[Transmit]:
        """[any, after the last read] Every transmit that :meth:`read` has not returned."""

    def repeat(self, repetition: Repetition) -> str | None:
        """[send] Makes the driver send frames periodically, the first at once; returns why not.

        If the key is already repeated, these frames and this period replace the old ones with its
        next frame, without a gap or a duplicate; if they cannot be repeated, the repetition ends.
        All repetitions end when the backend is closed, and when the controller is off the bus.
        """
        del repetition
        return "this interface does not repeat frames by itself"

    def stop_repeating(self, key: RepeatKey) -> None:  # noqa: B027 - none can be repeated
        """[send] Ends a repetition, if there is one; the driver does not start another frame."""

    def repeated(self) -> dict[RepeatKey, int]:
        """[send] The current repetitions, and how many frames of each were seen on the bus."""
        return {}

    def filter(self, filters: FilterSet) -> None:  # noqa: B027 - optional on purpose
        """[recv] The union of all clients' filters, for adapters and drivers that can filter.

        This is a hint: the routes drop frames that pass unnecessarily.
        """

    def counters(self) -> dict[str, int]:
        """[any] Counters of errors of the adapter or its line, for ``status``."""
        return {}

    def error_counters(self) -> ErrorCounters | None:
        """[recv] The controller's error counters; ``None`` if the adapter does not tell them."""
        return None

    def stamp_clock(self) -> StampClock | None:
        """[recv] The clock that stamps frames; ``None``: it is the host's, or not known yet."""
        return None

    @abstractmethod
    def close(self) -> None:
        """[any] Closes the adapter. Idempotent. Does not wake any thread, because none blocks."""

    def fault(self, frame: Frame) -> str | None:
        """[send] Why this adapter cannot send the frame, or ``None`` if it can."""
        if self.listen_only:
            return LISTEN_ONLY
        if frame.flags & ERROR and not self.supports_error_frames:
            return "this adapter cannot send error frames"
        if frame.flags & FD and not self.fd:
            return "the channel was not opened for CAN FD (fd=True)"
        if frame.flags & HARDWARE_TIMESTAMP and not self.keeps_timestamps:
            return "only virtual channels keep the timestamp of a sent frame"
        return frame_fault(frame.arbitration_id, frame.flags, frame.data)
