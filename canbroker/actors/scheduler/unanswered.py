"""Transmit requests of the scheduler that a channel has not answered yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from canbroker.actors.scheduler.lateness import bin_of
from canbroker.actors.scheduler.schedule import Task
from canbroker.system import clock
from canbroker.wire.transmit import Reply, Status

#: Statuses that mean that the channel is down. The slots of these frames count as skipped.
_PAUSED: Final = frozenset(
    {
        Status.QUEUE_FULL,
        Status.BUS_OFF,
        Status.DEVICE_GONE,
        Status.EXPIRED,
        Status.SHUTTING_DOWN,
        Status.STALE,
    }
)


class _Request(NamedTuple):
    token: int
    due_ns: int
    tasks: Sequence[Task]  # one for each frame


class UnansweredRequests:
    """The requests in the order in which they were sent, and the tasks' accounts. One thread.

    A frame counts as sent until its request is known to have failed.
    """

    def __init__(self, refused: Callable[[Task, str], None]) -> None:
        """``refused`` is called with each frame that channel or driver refused, and the reason."""
        self.frames = 0  # in all of the requests
        self.token = 0  # of the last request
        self._refused = refused
        self._requests: deque[_Request] = deque()

    @property
    def answered(self) -> int:
        """All requests up to this token are answered, or given up."""
        return self._requests[0].token - 1 if self._requests else self.token

    def add(self, token: int, due_ns: int, tasks: Sequence[Task]) -> None:
        """A request was sent: a frame of each of ``tasks``, which were due at ``due_ns``."""
        self.token = token
        for task in tasks:
            task.sent += 1
            task.request = token
        self._requests.append(_Request(token, due_ns, tasks))
        self.frames += len(tasks)

    def handle(self, reply: Reply) -> None:
        """Accounts for an answer; ``docs/protocol.md`` says which requests it answers."""
        if reply.status == Status.OK:
            while self._requests and self._requests[0].token <= reply.token:
                request = self._pop(0)
                if request.token == reply.token:
                    _note_lateness(request, reply)
        elif reply.status == Status.STALE:
            self.give_up(reply.token)
        else:
            for index, request in enumerate(self._requests):
                if request.token == reply.token:
                    self._fail(self._pop(index), reply)
                    return

    def give_up(self, token: int) -> None:
        """Nobody will answer requests up to ``token``; whether they were sent is unknown."""
        while self._requests and self._requests[0].token <= token:
            for task in self._pop(0).tasks:
                task.sent -= 1
                task.skipped += 1

    def _fail(self, request: _Request, reply: Reply) -> None:
        for index in reply.failed:
            if index >= len(request.tasks):
                continue
            task = request.tasks[index]
            task.sent -= 1
            if reply.status in _PAUSED:
                task.skipped += 1
            else:
                task.failed += 1
                self._refused(task, reply.reason)

    def _pop(self, index: int) -> _Request:
        request = self._requests[index]
        del self._requests[index]
        self.frames -= len(request.tasks)
        return request


def _note_lateness(request: _Request, reply: Reply) -> None:
    """How long after its due time the driver accepted the last frame of a request."""
    monotonic_ns = reply.timestamp_ns - clock.wall_ns() + clock.monotonic_ns()
    late_ns = max(0, monotonic_ns - request.due_ns)
    at = bin_of(late_ns)
    for task in request.tasks:
        task.lateness.add(at, late_ns)
