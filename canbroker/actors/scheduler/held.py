"""Requests for periodic tasks that wait until their channel has said how it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from canbroker.system import clock
from canbroker.transport.replier import Caller
from canbroker.wire.tasks import AddTask, StopTasks

#: How many wait at a time.
MAX_HELD: Final = 1_024

#: A channel has this long to say how it is before a task there is refused.
_ANSWER_NS: Final = 2 * clock.SECOND


class Held(NamedTuple):
    """A request that waits for what a channel has to say."""

    caller: Caller
    request: AddTask
    until_ns: int


class HeldRequests:
    """The requests that wait; one that is repeated counts once. One thread."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Held] = {}  # by client and task

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    @property
    def full(self) -> bool:
        return len(self._held) >= MAX_HELD

    def add(self, caller: Caller, request: AddTask) -> None:
        """Keeps a request; one that is repeated waits no longer for that."""
        key = request.client_id, request.task
        before = self._held.get(key)
        until_ns = clock.monotonic_ns() + _ANSWER_NS if before is None else before.until_ns
        self._held[key] = Held(caller, request, until_ns)

    def remove(self, held: Held) -> None:
        del self._held[held.request.client_id, held.request.task]

    def give_up(self, stop: StopTasks) -> list[Held]:
        """Removes and returns those that a client wants stopped."""
        given_up = [held for held in self if _concerns(stop, held.request)]
        for held in given_up:
            self.remove(held)
        return given_up

    def channels(self) -> set[str]:
        """The channels that requests wait for."""
        return {held.request.channel for held in self._held.values()}

    def clients(self) -> set[str]:
        """The ids of the clients whose requests wait."""
        return {client_id for client_id, _ in self._held}


def _concerns(stop: StopTasks, added: AddTask) -> bool:
    return stop.client_id == added.client_id and stop.task in {None, added.task}
