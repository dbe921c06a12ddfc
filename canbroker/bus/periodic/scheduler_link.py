"""A client's connection to the scheduler of periodic tasks."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeVar
from weakref import WeakMethod

from canbroker.bus.brokers import Broker
from canbroker.bus.channel_clock import ChannelClock
from canbroker.bus.life import Life
from canbroker.bus.periodic.timer import shared
from canbroker.bus.turns import Turn
from canbroker.errors import (
    CanError,
    CanInitializationError,
    CanOperationError,
    CanTimeoutError,
)
from canbroker.system import clock, locks
from canbroker.system.locks import Rank
from canbroker.transport.calls import ControlError, ControlLink, NoAnswerError, result_of
from canbroker.wire import WireError, control
from canbroker.wire.tasks import AddTask, ModifyTask, StopTasks, TaskAdded, TaskTrouble

#: On a busy machine, the process of the scheduler takes this long to start.
_START_S: Final = 20.0

#: It answers at once. A request is repeated, as a scheduler that is killed loses it.
_ANSWER_NS: Final = 5 * clock.SECOND
_AGAIN_NS: Final = clock.SECOND // 2

#: A task is not started later than this before its request expires: the answer would be late.
_UNDERWAY_NS: Final = clock.SECOND // 10

_LEAVE_NS: Final = clock.SECOND

#: The most unanswered requests.
_AT_ONCE: Final = 256

_logger = logging.getLogger("canbroker.bus")

_T = TypeVar("_T")


class TaskLink:
    """The requests of one client to the scheduler, and the scheduler's unsolicited reports.

    Any number of threads, which take turns. Connects with the first request. Requests are repeated
    until they are answered, so any of them may arrive twice. A request that follows an unanswered
    one also arrives after it.
    """

    def __init__(
        self,
        life: Life,
        broker: Broker,
        client_id: str,
        on_trouble: Callable[[TaskTrouble], None],
        channel_clock: ChannelClock,
    ) -> None:
        """Opens nothing.

        :param on_trouble: a method, called in a turn by the thread that receives the report. Its
            object knows functions of the user, and so perhaps the bus, which must not be kept
            alive from here: this keeps a weak reference to it.
        :param channel_clock: also the scheduler's, which runs on the channel's host.
        """
        self.turn = Turn("managing periodic tasks")
        self.client_id = client_id
        self._life = life
        self._broker = broker
        self._check_open = life.check_open
        self._finish = life.finish
        self._channel_clock = channel_clock
        self._on_trouble = WeakMethod(on_trouble)
        self._link: ControlLink | None = None
        self._silent = False  # the last request was not answered
        self._numbers = itertools.count(1)
        self._asked: set[int] = set()
        self._answers: dict[int, control.Reply] = {}
        self._arming = locks.make(Rank.ARMING)
        self._listening = False
        self._descriptor: int | None = None  # of the socket

    # ------------------------------------------------------------------------------- requests

    def in_turn(self, job: Callable[[], _T]) -> _T:
        """What ``job`` returns, which may call :meth:`add`, :meth:`modify` and :meth:`stop`.

        :raises CanOperationError: the bus is closed, or the call comes from a signal handler
            that has interrupted another one.
        """
        self._check_open()
        try:
            return self.turn.run(None, functools.partial(self._turn, job))
        finally:
            self._arm()
            self._finish()

    def add(self, request: AddTask) -> TaskAdded:
        """Starts a task. In a turn.

        :raises CanPermissionError: our key does not have the right.
        :raises ControlError: the scheduler does not start it.
        :raises CanOperationError: it did not answer in time, and may have started it just now.
        """
        self._connected()  # first: a scheduler that has to be started may take longer than that
        deadline = clock.monotonic_ns() + _ANSWER_NS - _UNDERWAY_NS
        request.expires_ns = self._channel_clock.deadline(deadline)
        (reply,) = self._exchange("task_add", [request], _ANSWER_NS)
        return _result(reply, TaskAdded, "task_add")

    def take_back(self, task: int) -> None:
        """Asks to stop a task that may still be started, without waiting. In a turn."""
        if self._link is not None:
            stop = StopTasks(client_id=self.client_id, task=task)
            self._link.send(control.encode_request(next(self._numbers), "task_stop", stop))

    def modify(self, request: ModifyTask) -> TaskAdded:
        """Changes a task. In a turn. :raises: as :meth:`add`."""
        (reply,) = self._exchange("task_modify", [request], _ANSWER_NS)
        return _result(reply, TaskAdded, "task_modify")

    def stop(self, tasks: Sequence[int]) -> None:
        """Ends tasks; none of their frames is sent after this has returned. In a turn.

        :raises: as :meth:`add`.
        """
        for start in range(0, len(tasks), _AT_ONCE):
            requests = [
                StopTasks(client_id=self.client_id, task=task)
                for task in tasks[start : start + _AT_ONCE]
            ]
            for reply in self._exchange("task_stop", requests, _ANSWER_NS):
                _result(reply, control.Nothing, "task_stop")

    def leave(self) -> None:
        """Ends all tasks of the client, before it leaves its channel, which also ends them."""
        if self._link is None:
            return
        requests = [StopTasks(client_id=self.client_id)]
        job = functools.partial(self._exchange, "task_stop", requests, _LEAVE_NS)
        try:
            self.turn.run(clock.monotonic_ns() + _LEAVE_NS, job)
        except CanError as error:
            _logger.debug("the scheduler did not confirm the end of periodic tasks: %s", error)

    # ----------------------------------------------------------------------------- unsolicited

    def listen(self, wanted: bool) -> None:
        """Whether the timer's thread calls :meth:`collect` when something has arrived."""
        self._listening = wanted
        if wanted:
            self._arm()
        elif self._descriptor is not None:
            shared().disarm(self._descriptor)

    def collect(self) -> None:
        """Handles the messages that have arrived, unless another thread has a turn and will."""
        if self._link is None or self.turn.taken():
            return
        try:
            self.turn.run(0, self._collect)
        except CanTimeoutError:  # another thread was faster
            return
        finally:
            self._arm()

    def mine(self) -> bool:
        """Whether this thread has a turn."""
        return self.turn.mine()

    def wake_up(self) -> None:
        """Nothing to do: threads that wait here also wait for the wake of the bus."""

    def close(self) -> None:
        """Closes the socket, after all waiting threads were woken and found the bus closed."""
        self.turn.run(None, self._close)

    def forked(self) -> None:
        """[forked child] Leaves socket and lock to the parent."""
        self._arming = locks.make(Rank.ARMING)
        self._descriptor = None
        self._link = None

    # -------------------------------------------------------------------------------- in a turn

    def _turn(self, job: Callable[[], _T]) -> _T:
        self._check_open()
        try:
            return job()
        finally:
            self._collect()  # messages since the last answer, which may not be signalled any more

    def _exchange(
        self, method: str, requests: Sequence[control.Params], timeout_ns: int
    ) -> list[control.Reply]:
        """Sends requests together; returns their replies.

        :raises CanOperationError: a reply did not arrive in time, or the bus is being closed.
        """
        link = self._connected()
        bodies = {
            number: control.encode_request(number, method, params)
            for params, number in zip(requests, self._numbers, strict=False)
        }
        deadline = clock.monotonic_ns() + timeout_ns
        self._asked = set(bodies)
        self._answers = {}
        while self._asked:
            if not clock.remaining_ns(deadline):
                self._asked.clear()
                self._silent = True
                raise CanOperationError("the scheduler of periodic tasks does not answer")
            for number in sorted(self._asked):
                link.send(bodies[number])
            self._wait(link, min(clock.monotonic_ns() + _AGAIN_NS, deadline))
        return [self._answers[number] for number in bodies]

    def _wait(self, link: ControlLink, until: int) -> None:
        """Waits until all requests are answered, at most ``until`` (monotonic ns)."""
        while self._asked and (left := clock.remaining_ns(until)):
            link.wait(self._life.closing(), left)
            self._check_open()
            self._collect()

    def _connected(self) -> ControlLink:
        if self._link is None or self._silent:
            # The broker starts it if it does not run.
            endpoint = self._find_scheduler()
            self._silent = False
            if self._link is None:
                self._link = self._connect(endpoint)
                self._descriptor = self._link.socket.fileno()
        return self._link

    def _find_scheduler(self) -> str:
        nothing = control.Params()
        try:
            found = self._broker.ask("scheduler", nothing, control.SchedulerAt, _START_S)
        except (ControlError, NoAnswerError) as error:  # of the broker, not of the scheduler
            raise CanOperationError(str(error)) from error
        return found.control

    def _connect(self, endpoint: str) -> ControlLink:
        try:
            return ControlLink(self._life.context, self._broker.reached(endpoint), self.client_id)
        except CanInitializationError as error:
            raise CanOperationError(f"the scheduler of periodic tasks: {error}") from error

    def _collect(self) -> None:
        while self._link is not None:
            try:
                reply = self._link.reply()
                if reply is None:
                    return
                if reply.id in self._asked:
                    self._asked.discard(reply.id)
                    self._answers[reply.id] = reply
                elif reply.id == 0:
                    self._tell(result_of(reply, TaskTrouble, "task_add"))
            except (ControlError, WireError) as error:
                _logger.warning("cannot decode what the scheduler sent: %s", error)

    def _tell(self, trouble: TaskTrouble) -> None:
        on_trouble = self._on_trouble()
        if on_trouble is None:
            _logger.warning(
                "%d frames of a periodic task of a forgotten bus were not sent: %s",
                trouble.failed,
                trouble.reason,
            )
        else:
            on_trouble(trouble)

    def _arm(self) -> None:
        """Has the timer call :meth:`collect` when something arrives.

        Called after each turn, as a turn may consume the signal of the socket.
        """
        with self._arming:  # the socket may be about to be closed
            if self._listening and self._descriptor is not None:
                shared().arm(self._descriptor, self.collect)

    def _close(self) -> None:
        with self._arming:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                shared().disarm(descriptor)
        if self._link is not None:
            self._link.close()
            self._link = None


def _result(reply: control.Reply, result: type[_T], method: str) -> _T:
    """:raises CanOperationError: the reply cannot be decoded, or is a :class:`ControlError`."""
    try:
        return result_of(reply, result, method)
    except WireError as error:
        raise CanOperationError(f"the scheduler: {error}") from error
