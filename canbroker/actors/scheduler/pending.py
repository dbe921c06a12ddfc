"""Requests to add tasks that wait for the first state of their channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from canbroker.system import clock
from canbroker.transport.replier import Caller
from canbroker.wire.tasks import AddTask, StopTasks

#: The most requests that wait at a time.
MAX_PENDING: Final = 1_024

#: A channel has this long to publish its state before a task on it is refused.
_ANSWER_NS: Final = 2 * clock.SECOND


class PendingRequest(NamedTuple):
    """A request that waits for the state of its channel, until ``until_ns``."""

    caller: Caller
    request: AddTask
    until_ns: int


class PendingRequests:
    """The requests that wait; a repeated request counts once. One thread."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, int], PendingRequest] = {}  # by client and task

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[PendingRequest]:
        return iter(list(self._pending.values()))

    @property
    def full(self) -> bool:
        return len(self._pending) >= MAX_PENDING

    def add(self, caller: Caller, request: AddTask, now_ns: int) -> None:
        """Keeps a request; if it is repeated, it does not wait longer."""
        key = request.client_id, request.task
        before = self._pending.get(key)
        until_ns = now_ns + _ANSWER_NS if before is None else before.until_ns
        self._pending[key] = PendingRequest(caller, request, until_ns)

    def remove(self, pending: PendingRequest) -> None:
        del self._pending[pending.request.client_id, pending.request.task]

    def give_up(self, stop: StopTasks) -> list[PendingRequest]:
        """Removes and returns the requests for tasks that a client stops."""
        given_up = [pending for pending in self if _concerns(stop, pending.request)]
        for pending in given_up:
            self.remove(pending)
        return given_up

    def channels(self) -> set[str]:
        """The channels that requests wait for."""
        return {pending.request.channel for pending in self._pending.values()}

    def clients(self) -> set[str]:
        """The ids of the clients whose requests wait."""
        return {client_id for client_id, _ in self._pending}


def _concerns(stop: StopTasks, added: AddTask) -> bool:
    return stop.client_id == added.client_id and stop.task in {None, added.task}
