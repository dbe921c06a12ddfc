"""Requests that wait for an actor, and how many of them the broker accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from canbroker.broker.channel_slot import ChannelSlot, Client
from canbroker.broker.slots import SchedulerSlot
from canbroker.broker.supervisor import Phase
from canbroker.delivery.publisher import MAX_CLIENTS
from canbroker.errors import CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import limit, share
from canbroker.system.processes import start_of
from canbroker.transport.replier import Caller
from canbroker.wire import control
from canbroker.wire.ids import OWNER_CHARACTERS, is_owned

#: Requests that wait for a channel or the scheduler; each one costs some hundred bytes.
MAX_WAITING: Final = 4_096

#: Clients of a channel that come through a gateway with one key.
MAX_OF_KEY: Final = 256

#: Channels of one broker, each with a process.
MAX_CHANNELS: Final = 256

#: Connections of a client to a channel's stream: for frames, and for the state. The others are the
#: broker's, the scheduler's, and those of subscribers in other languages.
_PER_CLIENT: Final = 2
_OTHERS: Final = 4

#: Descriptors that a channel costs the broker: two pipes, the ring, and a socket.
_PER_CHANNEL: Final = 8

_Reply = Callable[[Caller, msgspec.Struct], None]


class _Waiting(NamedTuple):
    caller: Caller
    client_id: str
    client: Client
    slot: ChannelSlot


class Callers:
    """Requests that are answered when an actor serves, or cannot. The broker's one thread.

    ``turned_away`` counts clients, requests and channels that were refused because there were too
    many.
    """

    def __init__(self, reply: _Reply, start: Callable[[ChannelSlot], None]) -> None:
        """``reply`` answers a request; ``start`` starts the actor of a channel."""
        self.turned_away: Counter[str] = Counter()
        self._reply = reply
        self._start = start
        self._attaching: dict[str, _Waiting] = {}  # by the client's id: it asks again
        self._awaited: Counter[ChannelSlot] = Counter()  # requests in _attaching
        self._scheduling: dict[bytes, Caller] = {}  # by the connection

    def __len__(self) -> int:
        return len(self._attaching) + len(self._scheduling)

    def await_channel(
        self, caller: Caller, request: control.Attach, slot: ChannelSlot
    ) -> control.ErrorResult | None:
        """Answers a client as soon as its channel is open; returns the error if it is refused."""
        self._forget(request.client_id)
        clients = len(slot.clients) + self._awaited[slot]
        most = max_clients()
        if clients >= most and request.client_id not in slot.clients:
            return self._turn_away(
                "client",
                f"channel {slot.name!r} has {clients} clients, which is the most"
                + (f" for a limit of {limit()} open files" if most < MAX_CLIENTS else ""),
            )
        if self._is_full_of(request, slot, min(MAX_OF_KEY, max(1, most // 2))):
            return self._turn_away(
                "client", f"channel {slot.name!r} has as many clients with your key as it may have"
            )
        if len(self) >= MAX_WAITING:
            return self._turn_away("request", f"{len(self)} requests wait already")
        started = start_of(request.pid)
        client = Client(request.pid, request.program, clock.monotonic_ns(), started)
        client.given = request.parameters
        waiting = _Waiting(caller, request.client_id, client, slot)
        self._attaching[request.client_id] = waiting
        self._awaited[slot] += 1
        self._answer(waiting)
        return None

    def await_scheduler(self, caller: Caller) -> control.ErrorResult | None:
        """Answers a client as soon as the scheduler serves; returns the error if it is refused."""
        if len(self) >= MAX_WAITING and caller.identity not in self._scheduling:
            return self._turn_away("request", f"{len(self)} requests wait already")
        self._scheduling[caller.identity] = caller
        return None

    def check_room(self, channels: int) -> None:
        """:raises CanInitializationError: the broker already has as many channels as it can."""
        most = max_channels()
        if channels >= most:
            self.turned_away["channel"] += 1
            raise CanInitializationError(
                f"the broker has {channels} channels, which is the most"
                + (f" for a limit of {limit()} open files" if most < MAX_CHANNELS else "")
            )

    def is_awaited(self, slot: ChannelSlot) -> bool:
        return self._awaited[slot] > 0

    def serve(self, scheduler: SchedulerSlot) -> None:
        """Answers the requests whose actor serves, or cannot."""
        for waiting in list(self._attaching.values()):
            self._answer(waiting)
        if self._scheduling:
            self._serve_scheduling(scheduler)

    def end(self, reason: str) -> None:
        """Refuses all requests that wait."""
        error = control.ErrorResult("shutting-down", reason)
        for caller in (*(w.caller for w in self._attaching.values()), *self._scheduling.values()):
            self._reply(caller, error)
        self._attaching.clear()
        self._awaited.clear()
        self._scheduling.clear()

    def _is_full_of(self, request: control.Attach, slot: ChannelSlot, most: int) -> bool:
        """Whether the remote user who wants to attach a client has as many on the channel as
        one user may have. A gateway tells no process, and their ids begin with the user's key."""
        if request.pid or request.client_id in slot.clients:
            return False
        awaited = {name: each.client for name, each in self._attaching.items() if each.slot is slot}
        owner = request.client_id[:OWNER_CHARACTERS]
        theirs = sum(
            is_owned(name, owner) and not client.pid
            for name, client in (slot.clients | awaited).items()
        )
        return theirs >= most

    def _turn_away(self, what: str, reason: str) -> control.ErrorResult:
        self.turned_away[what] += 1
        return control.ErrorResult("limit", reason)

    def _answer(self, waiting: _Waiting) -> None:
        """Answers a client if its channel is open, or cannot be opened."""
        slot = waiting.slot
        match slot.phase:
            case Phase.RUNNING:
                slot.clients[waiting.client_id] = waiting.client
                result: msgspec.Struct = slot.attached()
            case Phase.FAILED:
                result = control.ErrorResult(slot.code, slot.reason)
            case Phase.STOPPED:  # it was closing when it was asked for
                self._start(slot)
                return
            case _:
                return
        self._forget(waiting.client_id)
        self._reply(waiting.caller, result)

    def _forget(self, client_id: str) -> None:
        waiting = self._attaching.pop(client_id, None)
        if waiting is not None:
            self._awaited[waiting.slot] -= 1
            self._awaited += Counter()  # drops the zeros

    def _serve_scheduling(self, scheduler: SchedulerSlot) -> None:
        result: msgspec.Struct
        match scheduler.phase:
            case Phase.RUNNING:
                result = control.SchedulerAt(control=str(scheduler.address))
            case Phase.FAILED:
                result = control.ErrorResult("scheduler", scheduler.reason)
            case _:
                return
        for caller in self._scheduling.values():
            self._reply(caller, result)
        self._scheduling.clear()


def max_clients() -> int:
    """The most clients of a channel: its actor has the broker's limit of open files."""
    return min(MAX_CLIENTS, max(1, share() // _PER_CLIENT - _OTHERS))


def max_channels() -> int:
    """The most channels of the broker."""
    return min(MAX_CHANNELS, max(1, share() // _PER_CHANNEL))
