"""Tasks that the scheduler runs."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence

from canbroker.bus.periodic.cyclic import check_protection, frames_of, period_ns_of, phase_ns_of
from canbroker.bus.periodic.scheduler_link import TaskLink
from canbroker.bus.periodic.task import PeriodicTask, TaskKeeper, TaskPlan
from canbroker.bus.periodic.timer import TimerEntry
from canbroker.errors import CanError, CanOperationError, CanPermissionError
from canbroker.model.frame import Frame
from canbroker.model.message import Message
from canbroker.transport.calls import ControlError
from canbroker.wire.tasks import AddTask, ModifyTask, TaskAdded

_logger = logging.getLogger("canbroker.bus")


class ScheduledTask(PeriodicTask):
    """A task that the scheduler runs, in a process of its own."""

    def __init__(self, tasks: TaskKeeper, plan: TaskPlan, number: int) -> None:
        super().__init__(tasks, plan)
        self.number = number
        self._frames = frames_of(self.messages)
        self._phase, self._phase_ns = plan.phase, phase_ns_of(plan.phase, self.period_ns)
        self._counter, self._checksum = plan.counter, plan.checksum
        check_protection(plan.counter, plan.checksum, self._frames)
        self.started = False  # changed in a turn only

    def start(self) -> None:
        """Starts it, from the first message and for the full duration, unless it runs."""
        self._tasks.raise_trouble(self)
        self._tasks.in_turn(self._start)

    def modify_data(self, messages: Message | Sequence[Message]) -> None:
        """Sends other messages from the next due time on, or from the next start.

        :raises ValueError: not as many, another identifier, or counter and checksum do not fit.
        """
        self._tasks.raise_trouble(self)
        new = self._successors(messages)
        frames = frames_of(new)
        check_protection(self._counter, self._checksum, frames)
        self._tasks.in_turn(functools.partial(self._modify, new, frames))

    def update(self, *, period: float) -> None:
        self._tasks.raise_trouble(self)
        period_ns = period_ns_of(period)
        phase_ns_of(self._phase, period_ns)
        self._tasks.in_turn(functools.partial(self._update, period, period_ns))

    # ----------------------------------------------------------------------------- in a turn

    def _start(self, link: TaskLink) -> None:
        self._tasks.begin(self)
        was_started, self.started = self.started, True  # even if no answer arrives
        try:
            self._tell(link.add(self._request(link.client_id)))
        except (ControlError, CanPermissionError):
            self.ended()
            raise
        except BaseException:
            if not was_started:  # so that it does not start later, unnoticed
                link.take_back(self.number)
            raise

    def _request(self, client_id: str) -> AddTask:
        return AddTask(
            client_id=client_id,
            task=self.number,
            pid=os.getpid(),
            channel=self._tasks.channel,
            messages=self._frames,
            period_ns=self.period_ns,
            phase_ns=self._phase_ns,
            duration_ns=self.duration_ns,
            counter=self._counter,
            checksum=self._checksum,
        )

    def _modify(self, messages: tuple[Message, ...], frames: list[Frame], link: TaskLink) -> None:
        self._change(link, ModifyTask(client_id=link.client_id, task=self.number, messages=frames))
        self.messages, self._frames = messages, frames

    def _update(self, period: float, period_ns: int, link: TaskLink) -> None:
        self._change(
            link, ModifyTask(client_id=link.client_id, task=self.number, period_ns=period_ns)
        )
        self.period, self.period_ns = period, period_ns

    def _change(self, link: TaskLink, change: ModifyTask) -> None:
        """Asks the scheduler to change the task, if it runs."""
        if not self.started:
            return
        try:
            self._tell(link.modify(change))
        except ControlError as error:
            if error.code != "unknown":
                raise
            self.ended()
            if self.duration_ns is None:  # with a duration, it has only finished
                raise CanOperationError(f"{self!r} does not run any more: {error}") from error

    def ended(self) -> None:
        """The scheduler no longer has it."""
        self.started = False
        self._tasks.ended(self)

    def _tell(self, added: TaskAdded) -> None:
        if added.warning:
            _logger.warning("%r: %s", self, added.warning)

    def report(self, error: CanOperationError, _: TimerEntry) -> None:
        if self._goes_on(error):
            return
        try:
            self.stop()
        except CanError:
            _logger.exception("%r cannot be stopped", self)
