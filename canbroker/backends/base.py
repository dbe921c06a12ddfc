"""The boundary between a channel actor and an adapter family.

A backend *is* an open adapter: opening returns one or raises, and leaves nothing behind. The
actor's two threads use it at the same time: the send thread hands frames over, the recv thread
takes out what happened, received frames and finished transmits in the one order of the bus.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec

from canbroker.errors import CanOperationError
from canbroker.model.filters import FilterSet
from canbroker.model.frame import ERROR, FD, HARDWARE_TIMESTAMP, Frame, frame_fault

LISTEN_ONLY = "the channel is listen-only"


class AdapterGoneError(CanOperationError):
    """The adapter can no longer be used: unplugged, hung, closed by the driver.

    The actor closes the backend, fails what was in flight, and tries to open it again.
    """


class Options(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a user may say about one channel. Each backend extends it with its own parameters.

    Values are checked in ``__post_init__`` (:class:`ValueError` naming the parameter), before
    any device is touched.
    """

    #: Parameters that, beside ``channel``, say which adapter is meant.
    identifying: ClassVar[frozenset[str]] = frozenset()
    #: Parameters of python-can's driver that are accepted and have no meaning here.
    without_effect: ClassVar[frozenset[str]] = frozenset()
    #: Other names of parameters, as python-can's driver has them -> ours.
    renamed: ClassVar[dict[str, str]] = {}
    #: Parameters of python-can's driver that are refused, and what to do instead.
    instead: ClassVar[dict[str, str]] = {}

    channel: str

    def written(self) -> dict[str, Any]:
        """What a user writes to get these: every parameter that has a value, by its name."""
        return {
            key: value for key, value in msgspec.structs.asdict(self).items() if value is not None
        }

    @property
    def identity(self) -> str:
        """Names the adapter: two channels with one identity would open the same hardware."""
        return self.channel


class Transmit:
    """One frame on its way to the bus. Returned by :meth:`Backend.read` when that has ended.

    The actor makes it; the backend sets ``timestamp_ns`` (wall clock, when the adapter took the
    frame) or ``failure`` (a sentence), and touches nothing else. With a ``failure`` it also sets
    ``unknown`` when the driver took the frame and did not say what became of it: it may be sent.
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
        self.sender = sender  # the client that queued it, and whose turn it takes
        self.origin = origin or sender  # the client whose frame it is: the scheduler has many
        self.request = request  # the actor's own account of where the frame came from
        self.queued_ns = queued_ns  # monotonic
        self.expires_ns = expires_ns  # monotonic; 0 is never
        self.timestamp_ns = 0
        self.failure: str | None = None
        self.unknown = False

    def __repr__(self) -> str:
        return f"<Transmit {self.frame!r} from {self.origin}>"


#: Names a task that a driver repeats: its client, and its number there.
RepeatKey = tuple[str, int]


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver shall send by itself: ``frames`` in turn, one every ``period_ns``.

    ``due_ns``: when one of them is due, on the monotonic clock; all others are whole periods before
    or after that.
    """

    key: RepeatKey
    frames: Sequence[Frame]
    period_ns: int
    due_ns: int


class BusCondition(NamedTuple):
    """What the controller of an open adapter says of its bus.

    ``off``: nothing can be sent or received until that has passed. ``reason`` may also tell of
    what is short of that (error passive); empty when there is nothing to tell.
    """

    off: bool = False
    reason: str = ""


class Backend(ABC):
    """An open adapter.

    Thread of each method: *send* and *recv* are the actor's two threads; *any* is any thread.
    """

    supports_error_frames: ClassVar[bool] = False
    #: Whether a frame may say itself when it was sent (flag 64). On a real bus that would be a lie.
    keeps_timestamps: ClassVar[bool] = False

    #: A line for people: adapter, version, serial number.
    info: str = ""
    #: Whether the driver can :meth:`repeat` frames by itself.
    repeats: bool = False

    #: What to open the adapter with when it was lost, if not with what it was opened with.
    reopening: Options | None = None

    #: Bit rates in bit/s where the backend knows them.
    bitrate: int | None = None
    data_bitrate: int | None = None
    #: Whether FD frames can be sent.
    fd: bool = False
    listen_only: bool = False
    #: Frames that were lost before the backend saw them, as far as the driver tells; cumulative.
    dropped: int = 0
    #: What the controller last said of its bus; replaced by :meth:`read`, read by any thread.
    condition: BusCondition = BusCondition()

    @abstractmethod
    def fileno(self) -> int:
        """[any] A descriptor that is readable while :meth:`read` has something to return."""

    @abstractmethod
    def read(self) -> Sequence[Frame | Transmit]:
        """[recv] All that has happened since the last call, in bus order, without blocking.

        A :class:`Transmit` comes back exactly once, whatever became of it. What the driver has
        repeated is an :class:`EchoFrame` with its client as ``origin``.

        :raises AdapterGoneError: the adapter is lost. What was read before is returned first.
        """

    def due_ns(self) -> int | None:
        """[recv] Monotonic time at which :meth:`read` wants to be called even if the descriptor
        stays silent (an acknowledgement's deadline, say); ``None`` if it does not."""
        return None

    @abstractmethod
    def room(self, sender: str) -> int:
        """[send] How many more frames of this client :meth:`send` takes now."""

    @abstractmethod
    def send(self, transmits: Sequence[Transmit]) -> None:
        """[send] Hands frames to the driver, in order; at most :meth:`room` of one client.

        :raises AdapterGoneError: the adapter is lost; the frames come back from ``abandon``.
        """

    @abstractmethod
    def abandon(self) -> Sequence[Transmit]:
        """[any, after the last read] Every transmit that was sent and never came back."""

    def repeat(self, repetition: Repetition) -> str | None:
        """[send] Has the driver send frames periodically, the first at once; returns why not.

        For a key that is repeated already these frames and this period hold from its next frame
        on, without a gap and without one twice; if they cannot be repeated, it ends. All end when
        the backend is closed, and when the controller is off the bus.
        """
        del repetition
        return "this interface does not repeat frames by itself"

    def stop_repeating(self, key: RepeatKey) -> None:  # noqa: B027 - none can be repeated
        """[send] Ends a repetition, if there is one; the driver begins no frame of it any more."""

    def repeated(self) -> dict[RepeatKey, int]:
        """[send] What is repeated, and how many frames of each were seen on the bus."""
        return {}

    def filter(self, filters: FilterSet) -> None:  # noqa: B027 - optional on purpose
        """[recv] The union of what anyone wants, for adapters and drivers that can filter.

        A hint: what passes without need is dropped by the routes.
        """

    def counters(self) -> dict[str, int]:
        """[any] Counts of what the adapter or its line got wrong, for ``status``."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """[any] Gives the adapter back. Idempotent; wakes nobody up because nobody blocks."""

    def fault(self, frame: Frame) -> str | None:
        """[send] Why this adapter cannot send the frame, or ``None`` if it can."""
        if self.listen_only:
            return LISTEN_ONLY
        if frame.flags & ERROR and not self.supports_error_frames:
            return "this adapter cannot send error frames"
        if frame.flags & FD and not self.fd:
            return "the channel was not opened for CAN FD (fd=True)"
        if frame.flags & HARDWARE_TIMESTAMP and not self.keeps_timestamps:
            return "only virtual channels keep the timestamp of what is sent"
        return frame_fault(frame.arbitration_id, frame.flags, frame.data)
