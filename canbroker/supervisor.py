"""One channel as the broker sees it: its actor's process, its clients, and when to do what.

Everything that depends on time is in :meth:`ChannelSlot.step`, which is passed the time.
"""

from __future__ import annotations

import enum
import logging
import os
from typing import Any, Final

import msgspec

from canbroker import clock
from canbroker.actors.channel import ChannelSpec
from canbroker.backends import Options
from canbroker.fabric.requests import StateFeed
from canbroker.fabric.sockets import Context, Waiter
from canbroker.process import Child, Exit
from canbroker.runtime import Runtime
from canbroker.wire import WireError, control, topics
from canbroker.wire.stream import StateEvent, decode_event

#: A restart waits this long, twice as long each time it did not help.
_BACKOFF_FIRST_NS: Final = 50 * clock.MILLISECOND
_BACKOFF_MAX_NS: Final = 5 * clock.SECOND

#: So many starts in a row that did not last are given up.
_GIVE_UP_AFTER: Final = 10

#: A start has worked when the actor lived this long.
_LASTED_NS: Final = 10 * clock.SECOND

#: The recv loop publishes the state every second at least. One that does not is hung.
_HUNG_NS: Final = 6 * clock.SECOND

#: The broker looks at each channel every second. If it was later, it was stopped itself.
_ASLEEP_NS: Final = 3 * clock.SECOND

#: Opening an adapter may take its time, but not longer.
_OPEN_NS: Final = 20 * clock.SECOND

#: A channel that cannot be opened and that the configuration or clients want is tried this often.
_RETRY_NS: Final = 5 * clock.SECOND

#: An actor that was told to leave is killed after this long.
_LEAVE_NS: Final = 3 * clock.SECOND

#: A client that was given a channel and never subscribed is forgotten after this long.
_UNSEEN_NS: Final = 10 * clock.SECOND

#: A channel that a client opened is closed this long after its last client.
_IDLE_NS: Final = 2 * clock.SECOND

_logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    FAILED = "failed"


class Client(msgspec.Struct):
    """A client of a channel, as it introduced itself; ``seen`` once its subscription was."""

    pid: int
    program: str
    since_ns: int
    seen: bool = False
    filters: str = ""


class ChannelSlot:
    """A channel and the life of its actor. Used by the broker's one thread."""

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        interface: str,
        options: Options,
        *,
        configured: bool,
        log_level: str,
    ) -> None:
        """``configured``: from the configuration file, so it stays without clients.

        :raises CanInitializationError: the runtime directory is too long for the sockets.
        """
        self.name = name
        self.interface = interface
        self.options = options
        self.configured = configured
        self.phase = Phase.STOPPED
        self.reason = ""
        self.code = "initialization"  # groups a failed start, as an error of the protocol
        self.state: StateEvent | None = None
        self.clients: dict[str, Client] = {}
        self.child: Child | None = None
        self.feed: StateFeed | None = None
        self.restarts = 0
        self._logged = ""
        self._log_level = log_level
        self._endpoints = {kind: runtime.channel_endpoint(name, kind) for kind in _KINDS}
        self._failures = 0
        self._ran = False  # since it was begun
        self._since_ns = clock.monotonic_ns()
        self._heard_ns = 0
        self._stepped_ns = self._since_ns
        self._listen_only: bool | None = None  # as the channel was, for the actor's successor
        self._idle_ns: int | None = None
        self._retry_at = 0

    def __repr__(self) -> str:
        return f"<ChannelSlot {self.name} {self.phase.value} clients={len(self.clients)}>"

    @property
    def parameters(self) -> dict[str, Any]:
        return self.options.written()

    @property
    def idle(self) -> bool:
        """Whether it exists for clients only, and they are gone."""
        ended = self.phase in {Phase.STOPPED, Phase.FAILED}
        return ended and not self.configured and not self.clients

    def attached(self) -> control.Attached:
        """Where clients find the channel."""
        return control.Attached(
            name=self.name,
            interface=self.interface,
            parameters=self.parameters,
            stream=self._endpoints["rx"],
            transmit=self._endpoints["tx"],
            control=self._endpoints["ctl"],
        )

    def status(self) -> control.ChannelStatus:
        return control.ChannelStatus(
            name=self.name,
            interface=self.interface,
            parameters=self.parameters,
            configured=self.configured,
            phase=self.phase.value,
            reason=self.reason,
            pid=self.child.pid if self.child else None,
            restarts=self.restarts,
            stream=self._endpoints["rx"],
            transmit=self._endpoints["tx"],
            control=self._endpoints["ctl"],
            state=self.state,
            clients=[
                control.ClientStatus(
                    client_id=client_id,
                    pid=client.pid,
                    program=client.program,
                    filters=client.filters,
                )
                for client_id, client in self.clients.items()
            ],
        )

    # ------------------------------------------------------------------------------ lifecycle

    def begin(self, waiter: Waiter) -> None:
        """Starts the actor for someone who asks for it: what failed before is forgotten."""
        self._failures = 0
        self._ran = False
        self._listen_only = None
        self.start(waiter)

    def start(self, waiter: Waiter) -> None:
        """Starts the actor; :meth:`answered` tells how that went."""
        self.code = "initialization"
        parameters = self.parameters
        if self._listen_only is not None and hasattr(self.options, "listen_only"):
            parameters["listen_only"] = self._listen_only  # a client may have changed it
        spec = ChannelSpec(
            name=self.name,
            interface=self.interface,
            parameters=parameters,
            stream=self._endpoints["rx"],
            transmit=self._endpoints["tx"],
            control=self._endpoints["ctl"],
            log_level=self._log_level,
        )
        try:
            self.child = Child(spec)
        except OSError as error:  # no process, no descriptor, no memory
            self.reason = f"cannot start the channel actor: {error}"
            _logger.exception("channel %r", self.name)
            self.phase = Phase.FAILED
            return
        waiter.add(self.child)
        self._enter(Phase.STARTING)

    def answered(self, context: Context, waiter: Waiter) -> None:
        """Takes what the child has to say: that it is ready, why it is not, or that it ended."""
        child = self.child
        if child is None:
            return
        answer = child.answer()
        if answer is None:
            self._ended(child, waiter)
        elif answer.error:
            self.reason, self.code = answer.error, answer.code
        elif self.phase is Phase.STARTING:
            self._enter(Phase.RUNNING)
            self._heard_ns = clock.monotonic_ns()
            self.feed = StateFeed(context, self._endpoints["rx"], topics.state_topic(self.name))
            waiter.add(self.feed.socket)

    def stop(self, reason: str) -> None:
        """Tells the actor to leave; :meth:`step` kills it if it does not."""
        self.reason = reason
        if self.child is not None:
            self.child.release()
            self._enter(Phase.STOPPING)
        else:
            self._enter(Phase.STOPPED)

    def step(self, now_ns: int, waiter: Waiter) -> int:
        """Does what is due; returns the monotonic time at which to call again."""
        since = now_ns - self._since_ns
        if now_ns - self._stepped_ns > _ASLEEP_NS:
            self._heard_ns = now_ns  # it was us who did not listen
        self._stepped_ns = now_ns
        match self.phase:
            case Phase.BACKING_OFF:
                if now_ns < self._retry_at:
                    return self._retry_at
                self.start(waiter)
            case Phase.FAILED:
                self._forget_clients(now_ns)
                if since > _RETRY_NS and (self.configured or self.clients):
                    self.begin(waiter)
            case Phase.STARTING if since > _OPEN_NS:
                self._kill("did not open its adapter in time")
            case Phase.STOPPING if since > _LEAVE_NS:
                self._kill("did not leave when told to")
            case Phase.RUNNING if now_ns - self._heard_ns > _HUNG_NS:
                self._kill("is hung")
            case Phase.RUNNING:
                self._forget_clients(now_ns)
                self._close_idle(now_ns)
        return now_ns + clock.SECOND

    def _kill(self, why: str) -> None:
        if self.child is not None:
            _logger.error("channel %r: actor %d %s, killing it", self.name, self.child.pid, why)
            self.reason = f"the channel actor {why}"
            self._since_ns = clock.monotonic_ns()
            self._heard_ns = self._since_ns
            self.child.kill()

    def _ended(self, child: Child, waiter: Waiter) -> None:
        """The child has closed its output: it ends now, or has."""
        waiter.remove(child)
        if self.feed is not None:
            waiter.remove(self.feed.socket)
            self.feed.close()
            self.feed = None
        code = child.wait(_LEAVE_NS / clock.SECOND)
        if code is None:
            child.kill()
            code = child.wait(None)
        child.close()
        self.child = None
        self.state = None
        if self.phase is Phase.STOPPING:
            self._enter(Phase.STOPPED)
        elif self.phase is Phase.STARTING and not self._ran:
            self.reason = self.reason or f"the channel actor ended while it started ({code})"
            if self.reason != self._logged:  # a configured one is tried for ever
                self._logged = self.reason
                _logger.error("channel %r cannot be opened: %s", self.name, self.reason)
            self._enter(Phase.FAILED)
        else:
            self._back_off(child.pid, code)

    def _back_off(self, pid: int, code: int | None) -> None:
        now = clock.monotonic_ns()
        lasted = self.phase is Phase.RUNNING and now - self._since_ns > _LASTED_NS
        self._failures = 0 if lasted else self._failures + 1
        why = self.reason if code == Exit.REFUSED else f"actor {pid} ended with {code}"
        self.reason = why
        if self._failures > _GIVE_UP_AFTER:
            _logger.critical("channel %r: %s; giving it up", self.name, why)
            self._enter(Phase.FAILED)
            return
        delay = min(_BACKOFF_FIRST_NS << max(0, self._failures - 1), _BACKOFF_MAX_NS)
        self.restarts += 1
        self._retry_at = now + delay
        _logger.error("channel %r: %s; restart in %d ms", self.name, why, delay // 1_000_000)
        self._enter(Phase.BACKING_OFF)

    def _enter(self, phase: Phase) -> None:
        if phase is Phase.RUNNING:
            self.reason = self._logged = ""
            self._ran = True
        self.phase = phase
        self._since_ns = clock.monotonic_ns()
        if phase in {Phase.RUNNING, Phase.FAILED}:
            # Clients of an actor that is replaced come back when they next use their bus.
            for client in self.clients.values():
                if client.seen:
                    client.seen = False
                    client.since_ns = self._since_ns

    # -------------------------------------------------------------------------------- clients

    def take_state(self) -> None:
        """Follows the actor's state stream: that it lives, and who is subscribed."""
        while self.feed is not None and (body := self.feed.receive()) is not None:
            try:
                event = decode_event(body).payload
            except WireError:
                _logger.exception("channel %r: state not understood", self.name)
                continue
            if isinstance(event, StateEvent):
                self._heard_ns = clock.monotonic_ns()
                self.state = event
                if event.state != "error":
                    self._listen_only = event.state == "passive"
                self._note_clients(event)

    def _note_clients(self, event: StateEvent) -> None:
        present = {client.client_id: client.filters for client in event.clients}
        now = clock.monotonic_ns()
        for client_id, filters in present.items():
            # Unknown: it has outlived the broker that it introduced itself to.
            client = self.clients.setdefault(client_id, Client(0, "?", now))
            client.seen = True
            client.filters = filters
        for client_id, client in list(self.clients.items()):
            if client.seen and client_id not in present:
                del self.clients[client_id]

    def _forget_clients(self, now_ns: int) -> None:
        for client_id, client in list(self.clients.items()):
            late = not client.seen and now_ns - client.since_ns > _UNSEEN_NS
            if late and not _alive(client.pid):
                del self.clients[client_id]

    def _close_idle(self, now_ns: int) -> None:
        if self.configured or self.clients:
            self._idle_ns = None
        elif self._idle_ns is None:
            self._idle_ns = now_ns
        elif now_ns - self._idle_ns > _IDLE_NS:
            self._idle_ns = None
            self.stop("its last client has left")


def _alive(pid: int) -> bool:
    """Whether a process of this number runs; 0 is a client that has not told its own."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_KINDS: Final = ("rx", "tx", "ctl")
