"""Scripted ends of a channel, and tasks, for tests of the scheduler that pass in the time."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec

from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.model.frame import Frame
from canbroker.system.clock import MILLISECOND
from canbroker.wire import control
from canbroker.wire.stream import ClientInfo, StateEvent, encode_event
from canbroker.wire.tasks import RepeatCount, RepeatCounts, Repeating
from canbroker.wire.transmit import Request, Status, decode_request, encode_reply

PERIOD_NS = 10 * MILLISECOND


class Transmit:
    """The transmit socket: keeps requests until the test answers them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.full = False
        self._replies: deque[bytes] = deque()

    def send(self, request: bytes) -> bool:
        if not self.full:
            self.requests.append(decode_request(request))
        return not self.full

    def receive(self) -> bytes | None:
        return self._replies.popleft() if self._replies else None

    def reply(self, token: int, status: Status = Status.OK, failed: tuple[int, ...] = ()) -> None:
        self._replies.append(encode_reply(token, status, 0, 0, status.name, failed))


class Call(NamedTuple):
    """A request on the control socket."""

    number: int
    method: str
    params: Any


class Control:
    """The control socket: keeps requests until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._count = 0
        self._replies: deque[control.Reply] = deque()

    def request(self, method: str, params: control.Params) -> int:
        self._count += 1
        self.calls.append(Call(self._count, method, params))
        return self._count

    def reply(self) -> control.Reply | None:
        return self._replies.popleft() if self._replies else None

    def answer(self, method: str, result: msgspec.Struct) -> Call:
        """Answers the oldest request, which must be for ``method``."""
        call = self.calls.pop(0)
        assert call.method == method
        self._replies.append(control.decode_reply(control.encode_reply(call.number, result)))
        return call

    def in_sync(self, *repeated: RepeatCount, supported: bool = False) -> None:
        """Tells what the channel repeats; if not ``supported``, that it cannot."""
        counts = RepeatCounts(tasks=list(repeated))
        error = control.ErrorResult("unknown", "no such method")
        self.answer("repeat_counts", counts if supported else error)

    def accept(self, reason: str = "") -> Call:
        """Answers an offer."""
        return self.answer("repeat", Repeating(repeating=not reason, reason=reason))


class States:
    """The state stream."""

    def __init__(self) -> None:
        self._bodies: deque[bytes] = deque()

    def receive(self) -> bytes | None:
        return self._bodies.popleft() if self._bodies else None

    def publish(self, *clients: str, epoch: int = 1, state: str = "active") -> None:
        infos = [ClientInfo(client_id=client, filters="") for client in clients]
        self._bodies.append(encode_event(epoch, StateEvent(state=state, clients=infos)))


class Connections:
    """A channel's connections."""

    def __init__(self) -> None:
        self.transmit = Transmit()
        self.control = Control()
        self.states = States()


def task(number: int = 1, *, origin: str = "alice", frames: int = 1) -> Task:
    made = [Frame(0, 0x100 + number, 0, bytes((index,))) for index in range(frames)]
    return Task(origin, number, "x", made, PERIOD_NS)


def due(schedule: Schedule, now_ns: int) -> list[Task]:
    """The tasks that are due now."""
    return [task for _, tasks in schedule.step(now_ns) for task in tasks]
