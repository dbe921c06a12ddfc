"""The edges of a channel actor's workers without sockets: scripted on one side, recorded on the
other."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import msgspec

from canbroker.actors.channel.ports import Accept, Ports
from canbroker.delivery.publisher import Leaving, Presence, Publisher
from canbroker.delivery.replayer import Replayer, Served
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import Frame
from canbroker.system.priority import RealTime
from canbroker.system.throttle import Throttle
from canbroker.transport.listening import Listening
from canbroker.transport.replier import Caller, Handler
from canbroker.transport.sockets import Socket
from canbroker.transport.waiter import SharedWaiter
from canbroker.wire import control
from canbroker.wire.replay import Held, History, Hold, Replay
from canbroker.wire.stream import StateEvent
from canbroker.wire.transmit import Reply, Request, decode_reply

_logger = logging.getLogger(__name__)


class ScriptedPorts(Ports):
    """Requests come from a script; replies are kept."""

    def __init__(self) -> None:
        self.refused = Throttle(_logger)
        self.waiter = SharedWaiter()
        self.transmit, self.control = object(), object()
        self.requests: deque[tuple[bytes, Request, int]] = deque()
        self.controls: deque[tuple[Caller, str, control.Params]] = deque()
        self.replies: list[tuple[bytes, Reply]] = []
        self.answers: list[tuple[Caller, msgspec.Struct]] = []
        self.is_closed = False
        self._handlers: Mapping[str, Handler] = {}

    def open(self, handlers: Mapping[str, Handler]) -> ScriptedPorts:
        """What a sender calls to open its sockets."""
        self._handlers = handlers
        return self

    def serve(self) -> None:
        while self.controls:
            caller, method, params = self.controls.popleft()
            result = self._handlers[method](caller, params)
            if result is not None:
                self.answer(caller, result)

    @property
    def ready(self) -> set[object]:
        """What a waiter would report."""
        sources = {self.transmit: self.requests, self.control: self.controls}
        return {which for which, waiting in sources.items() if waiting}

    def receive(
        self, accept: Accept, until_ns: int | None = None, *, is_last: bool = False
    ) -> bool:
        del is_last
        while self.requests:
            identity, request, now_ns = self.requests.popleft()
            accept(identity, request, now_ns)
            if until_ns is not None and now_ns >= until_ns:
                return False
        return True

    def reply(self, identity: bytes, reply: bytes) -> None:
        self.replies.append((identity, decode_reply(reply)))

    def answer(self, caller: Caller, result: msgspec.Struct) -> None:
        self.answers.append((caller, result))

    def look(self) -> bool:
        return bool(self.requests or self.controls)

    def attend(self, ready: Set[object]) -> None:
        """Nothing listens."""

    def close(self) -> None:
        self.is_closed = True


class RecordingRealTime(RealTime):
    """Records whether real time is wanted; asks no kernel for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_wanted = False

    def want(self) -> None:
        self.is_wanted = True

    def update(self) -> None:
        self.is_wanted = False


class _NoListening:
    def attend(self, ready: Set[object]) -> None:
        """Nothing listens."""

    def peers(self) -> list[int]:
        return []


class RecordingPublisher(Publisher):
    """Subscriptions come from a script; ``events`` lists what was published, in order."""

    def __init__(self) -> None:
        self.epoch = 1
        self.dropped_upstream = 0
        self.refused = Throttle(_logger)
        self.state_asked = False
        self.socket = cast(Socket, object())
        self.listening = cast(Listening, _NoListening())
        self.events: list[tuple[str, Any]] = []
        self.changes: list[Presence | Leaving] = []
        self.new_routes = False
        self.next_heartbeat: int | None = None  # what heartbeat() returns
        self.filters = EVERYTHING
        self.settles_ns = math.inf

    def __len__(self) -> int:
        return 0

    def of(self, kind: str) -> list[Any]:
        """What was published of one kind."""
        return [what for which, what in self.events if which == kind]

    @property
    def frames(self) -> list[Frame]:
        return [frame for frames in self.of("frames") for frame in frames]

    @property
    def states(self) -> list[StateEvent]:
        return self.of("state")

    def wanted(self) -> FilterSet:
        return self.filters

    def stop_keeping_all(self, now_ns: int) -> bool:
        settles = now_ns >= self.settles_ns
        if settles:
            self.settles_ns = math.inf
        return settles

    def hold(self, request: Hold) -> msgspec.Struct:
        self.events.append(("hold", request))
        return Held(self.epoch, 0, 0, continues=False)

    def end_holds(self, _: int) -> bool:
        return False

    def subscriptions(self) -> list[Presence | Leaving]:
        changes, self.changes = self.changes, []
        return changes

    def ready(self, client: Presence, state: msgspec.Raw) -> None:
        self.events.append(("ready", (client.client_id, state)))

    def left(self, client_id: str) -> None:
        self.events.append(("left", client_id))

    def state(self, event: StateEvent) -> None:
        self.state_asked = False
        self.events.append(("state", event))

    def publish(self, frames: Sequence[Frame]) -> None:
        self.events.append(("frames", list(frames)))

    def greet(self) -> bool:
        fresh, self.new_routes = self.new_routes, False
        return fresh

    def heartbeat(self, now_ns: int) -> int | None:
        self.events.append(("heartbeat", now_ns))
        return self.next_heartbeat

    def look(self, waiter: SharedWaiter) -> bool:  # noqa: ARG002 - there is no socket
        return bool(self.changes)

    def close(self, reason: str) -> None:
        self.events.append(("close", reason))


class ScriptedReplayer(Replayer):
    """Answers from a script; ``None`` stands for an answer that takes another turn."""

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        self.gone = 0
        self.answers: deque[msgspec.Struct | None] = deque()
        self.asked: list[Replay | History] = []

    def replay(self, params: Replay) -> msgspec.Struct | None:
        self.asked.append(params)
        return self.answers.popleft()

    def history(self, params: History) -> msgspec.Struct:
        self.asked.append(params)
        answer = self.answers.popleft()
        assert answer is not None, "history is answered at once"
        return answer
