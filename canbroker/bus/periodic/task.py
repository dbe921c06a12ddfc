"""What all periodic tasks have in common, and what they need from their bus."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from canbroker.bus.ownership import Uncopyable
from canbroker.bus.periodic.cyclic import (
    LimitedDurationCyclicSendTaskABC,
    ModifiableCyclicTaskABC,
    RestartableCyclicTaskABC,
)
from canbroker.bus.periodic.scheduler_link import TaskLink
from canbroker.bus.periodic.timer import TimerEntry
from canbroker.bus.unanswered import Failed, Unanswered
from canbroker.errors import CanOperationError
from canbroker.model.frame import Frame, describe
from canbroker.model.message import Message, to_frame
from canbroker.model.protection import Checksum, Counter

_logger = logging.getLogger("canbroker.bus")

Modifier: TypeAlias = Callable[[Message], object]
OnError: TypeAlias = Callable[[Exception], bool | None]


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    store: bool = True
    modifier: Modifier | None = None
    phase: float | None = None
    counter: Counter | None = None
    checksum: Checksum | None = None
    on_error: OnError | None = None


class TaskPlan(_Options, frozen=True):
    """What ``Bus.send_periodic`` was asked for, unchecked; the meaning is described there.

    ``store``: whether the bus keeps the task, and so stops it with all others.
    """

    messages: Message | Sequence[Message]
    period: float
    duration: float | None


class TaskKeeper(Protocol):
    """The tasks of one bus, as one of them sees it. Any thread."""

    @property
    def channel(self) -> str:
        """The name of the channel."""

    def check_open(self) -> None:
        """:raises CanOperationError: the bus is closed."""

    def in_turn(self, job: Callable[[TaskLink], None]) -> None:
        """Runs ``job`` while no other task of the bus uses the link to the scheduler."""

    def offer(self, frame: Frame, expires_ns: int, failed: Failed) -> Unanswered | None:
        """Sends a frame if there is room; ``failed`` is called if it fails later."""

    def wait_until_answered(self, request: Unanswered) -> None:
        """Waits until the driver has sent or dropped the frames of ``request``.

        :raises CanOperationError: it has not, after some seconds.
        """

    def begin(self, task: PeriodicTask) -> None:
        """Registers ``task``, which is about to run.

        :raises CanOperationError: the bus is closed, or there are too many tasks.
        """

    def ended(self, task: PeriodicTask) -> None:
        """Forgets ``task``, which has ended."""

    def stop(self, tasks: Sequence[PeriodicTask], *, remove: bool) -> None:
        """Ends tasks; none of their frames is sent after this has returned."""

    def note(self, task: PeriodicTask, error: CanOperationError) -> None:
        """Passes an error to ``on_error``, or keeps it for the next call that may raise it."""

    def raise_trouble(self, task: PeriodicTask) -> None:
        """Raises the error that was kept for ``task``."""


class PeriodicTask(
    Uncopyable,
    LimitedDurationCyclicSendTaskABC,
    RestartableCyclicTaskABC,
    ModifiableCyclicTaskABC,
):
    """What ``Bus.send_periodic`` returns. Any thread may use it; it keeps no bus open.

    Methods raise :class:`CanOperationError` if they fail, or if a frame of the task was refused
    since the last call. After the bus was shut down, all but :meth:`stop` raise.
    """

    def __init__(self, tasks: TaskKeeper, plan: TaskPlan) -> None:
        """
        :raises ValueError: as ``Bus.send_periodic``.
        :raises CanOperationError: likewise.
        """
        super().__init__(plan.messages, plan.period, plan.duration)
        self._tasks = tasks
        self.is_stored = plan.store
        self.on_error = plan.on_error
        self._name = describe(to_frame(self.messages[0]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} every {self.period:g} s>"

    #: Whether it may be running.
    started: bool

    @abstractmethod
    def update(self, *, period: float) -> None:
        """Changes the period, counted from the last due time: without a gap. Ours.

        :raises ValueError: not a valid period, or not longer than the phase.
        """

    def stop(self) -> None:
        """Ends it, if it runs. After this has returned, none of its frames is sent."""
        self._tasks.stop([self], remove=True)
        self._tasks.raise_trouble(self)

    @abstractmethod
    def report(self, error: CanOperationError, _: TimerEntry) -> None:
        """Calls ``on_error``. On the timer's thread."""

    def _goes_on(self, error: BaseException) -> bool:
        """What the user's ``on_error`` returns. On the timer's thread."""
        if self.on_error is None or not isinstance(error, Exception):
            return False
        try:
            return bool(self.on_error(error))
        except Exception:
            _logger.exception("on_error of %r failed", self)
            return False
