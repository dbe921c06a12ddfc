"""The recv thread of a channel actor: reads the adapter, publishes, and knows who is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from canbroker.actors.channel.error_storms import ErrorStorms
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    Down,
    Exclusive,
    Finished,
    Gone,
    KeeperMessage,
    LetGo,
    Lost,
    ReceiverMessage,
    SenderMessage,
    Settle,
    Stop,
    Up,
)
from canbroker.actors.channel.totals import Totals
from canbroker.actors.mailbox import Mailbox
from canbroker.backends import AdapterGoneError, Backend, BusCondition, Transmit
from canbroker.delivery.publisher import HEARTBEAT_NS, Leaving, Presence, Publisher
from canbroker.delivery.replayer import Replayer, Served
from canbroker.delivery.ring import Ring
from canbroker.model.filters import FilterSet
from canbroker.model.frame import ERROR, Frame
from canbroker.system import clock
from canbroker.transport.address import Address
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.replay import Replay
from canbroker.wire.stream import ClientInfo, Holder, StateEvent, echo, encode_state
from canbroker.wire.transmit import Status

#: Clients take a channel that says nothing for three times this long for gone.
STATE_INTERVAL_NS: Final = clock.SECOND // 2

#: While clients come and go the state, which names all of them to each of them, is published this
#: seldom: 40 µs for ten of them, 0.4 s for a thousand, whose states have 100 MB.
_PACE_NS_PER_PAIR: Final = 400

#: Requests for frames of the past that wait for their turn; each costs about a millisecond.
_MAX_ASKED: Final = 1024

#: The past is told for one part of the time, and the present has so many.
_PRESENT_SHARE: Final = 3

#: Characters of a client's filters in the state, which has to fit a message with all clients.
_SHOWN: Final = 512

_logger = logging.getLogger(__name__)


class Receiver:
    """One step of the recv thread at a time; owns the channel's publisher."""

    def __init__(
        self,
        context: Context,
        channel: str,
        endpoint: Address,
        epoch: int,
        ring: Ring,
        awaited: Iterable[str],
        inbox: Mailbox[ReceiverMessage],
        sender: Mailbox[SenderMessage],
        keeper: Mailbox[KeeperMessage],
        sender_counts: Callable[[], tuple[int, int]],
        error_rate: int,
    ) -> None:
        """``awaited``: clients of a predecessor; ``sender_counts`` tells (frames queued, requests
        refused) of the send thread; ``error_rate``: error frames a second that are passed on.

        :raises CanInitializationError: the endpoint cannot be bound.
        """
        self._channel = channel
        self._inbox = inbox
        self._sender = sender
        self._keeper = keeper
        self._sender_counts = sender_counts
        self._backend: Backend | None = None
        self._reason = "the adapter is not open"
        self._ends = False  # for good
        self._condition = BusCondition()  # as last published
        self._clients: dict[str, list[FilterSet]] = {}
        self._infos: dict[str, ClientInfo] = {}  # of each of them, for the state
        self._leaving: set[str] = set()  # clients; somebody wants to be told when they have left
        self._claims: dict[str, str] = {}  # who wants to transmit alone; the first one does
        self._holder: Holder | None = None
        self._totals = Totals()
        self._storms = ErrorStorms(error_rate)
        self._publisher = Publisher(context, endpoint, channel, epoch, ring, awaited)
        self._replayer = Replayer(ring, channel, epoch, self._publisher.route)
        self._asked: dict[bytes, Ask] = {}  # by the connection that asks
        self._replay_due = 0
        self._state_due = 0
        self._state_told = 0
        self._heartbeat_due: int | None = None  # None: there are no routes
        self._waiter = Waiter()
        self._waiter.add(self._publisher.socket)
        self._waiter.add(self._publisher.listening.monitor)
        self._waiter.add(inbox)

    def step(self) -> bool:
        """Waits for something to do and does it; ``False`` when told to stop."""
        ready = self._waiter.wait(self._patience())
        if self._inbox in ready:
            for message in self._inbox.take():
                if not self._handle(message):
                    return False
        if self._publisher.socket in ready:
            self._take_presence()
        backend = self._backend
        if backend is not None and (backend in ready or self._overdue(backend)):
            self._read(backend)
        now = clock.monotonic_ns()
        if now >= self._state_due:
            self._publish_state(now)
        if self._heartbeat_due is not None and now >= self._heartbeat_due:
            self._heartbeat_due = self._publisher.heartbeat(now)
        if self._asked and now >= self._replay_due:
            self._replay(self._asked.pop(next(iter(self._asked))))
        self._publisher.listening.attend(ready)
        return True

    def close(self) -> None:
        self._publisher.close(self._reason)

    # ------------------------------------------------------------------------------- waiting

    def _patience(self) -> int:
        """Nanoseconds until something is due without anyone asking for it."""
        # While there are heartbeats the state goes with one of them: an idle process should
        # rarely wake up.
        due = self._state_due if self._heartbeat_due is None else self._heartbeat_due
        if self._asked:
            due = min(due, self._replay_due)
        backend_due = self._backend.due_ns() if self._backend is not None else None
        if backend_due is not None:
            due = min(due, backend_due)
        return max(0, due - clock.monotonic_ns())

    def _overdue(self, backend: Backend) -> bool:
        due = backend.due_ns()
        return due is not None and due <= clock.monotonic_ns()

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: ReceiverMessage) -> bool:
        match message:
            case Up(backend):
                self._backend = backend
                self._reason = ""
                self._waiter.add(backend)
                backend.filter(self._publisher.wanted())
                self._state_due = 0
            case Down(reason, status):
                self._drop_backend(reason, ends=status is Status.SHUTTING_DOWN)
                self._keeper.put(LetGo("recv"))
            case Settle(caller):
                if self._backend is not None:
                    self._read(self._backend)
                self._sender.put(Answer(caller, control.Nothing()))
            case Ask(caller):
                # Who asks again before it is answered has that one answered.
                dropped = self._asked.get(caller.identity)
                if dropped is not None or len(self._asked) < _MAX_ASKED:
                    self._asked[caller.identity] = message
                else:
                    dropped = message
                if dropped is not None:
                    busy = control.ErrorResult("busy", "too many ask for frames of the past")
                    self._sender.put(Answer(dropped.caller, busy))
            case Stop(reason, for_good):
                self._reason, self._ends = reason, for_good
                self._publish_state(clock.monotonic_ns())
                return False
        return True

    def _replay(self, ask: Ask) -> None:
        """Answers one that wants frames of the past; the next one has to wait for a while."""
        began = clock.monotonic_ns()
        params = ask.params
        answer = (
            self._replayer.replay(params)
            if isinstance(params, Replay)
            else self._replayer.history(params)
        )
        now = clock.monotonic_ns()
        self._replay_due = now + _PRESENT_SHARE * (now - began)
        if answer is None:
            self._asked.setdefault(ask.caller.identity, ask)
            return
        served = self._replayer.served
        for client_id in served.keys() - self._clients.keys():
            del served[client_id]
        if isinstance(params, Replay) and params.client_id in served:
            self._describe(params.client_id)
        self._sender.put(Answer(ask.caller, answer))

    def _drop_backend(self, reason: str, *, ends: bool = False) -> None:
        self._reason = reason
        if self._backend is not None:
            self._waiter.remove(self._backend)
            self._totals.dropped_before += self._backend.dropped
            self._totals.interruptions += not ends
            self._backend = None
        self._publish_state(clock.monotonic_ns())

    # -------------------------------------------------------------------------------- frames

    def _read(self, backend: Backend) -> None:
        try:
            items = backend.read()
        except AdapterGoneError as error:
            self._drop_backend(str(error))
            self._keeper.put(Lost(backend, str(error)))
            return
        if backend.condition != self._condition:
            self._condition = backend.condition
            self._state_due = 0
        frames: list[Frame] = []
        finished: list[Transmit] = []
        held = 0
        now = clock.monotonic_ns()
        for item in items:
            if isinstance(item, Frame):
                if item.flags & ERROR and not self._storms.passes(item, now):
                    held += 1
                else:
                    frames.append(item)
            else:
                finished.append(item)
                if item.failure is None:
                    frames.append(echo(item.frame, item.timestamp_ns, item.origin))
        self._publisher.dropped_upstream = self._totals.dropped_before + backend.dropped
        self._publisher.publish(frames)
        self._totals.received += held
        self._totals.count(backend, frames, finished)
        if finished:
            # After the echo: who has the answer can rely on the others having the frame.
            self._sender.put(Finished(finished))

    # ------------------------------------------------------------------------------ presence

    def _take_presence(self) -> None:
        changes = self._publisher.subscriptions()
        if self._backend is not None:
            # Before anyone is told "ready", and relies on it.
            self._backend.filter(self._publisher.wanted())
        come, gone = self._note(changes)
        if gone:
            self._sender.put(Gone(gone))
        for client_id in self._leaving - self._clients.keys():
            self._leaving.discard(client_id)
            self._publisher.left(client_id)
        if come:
            state = encode_state(self._state(clock.monotonic_ns()))
            for change in come:
                self._publisher.ready(change, state)
        if come or gone or self._publisher.state_asked:
            # Who has just joined shall not wait long for the state; when a thousand do, not each
            # of them has everybody told of all the others.
            pace_ns = _PACE_NS_PER_PAIR * len(self._clients) ** 2
            self._state_due = min(self._state_due, self._state_told + pace_ns)
        if self._publisher.greet() and self._heartbeat_due is None:
            self._heartbeat_due = clock.monotonic_ns() + HEARTBEAT_NS

    def _note(self, changes: Iterable[Presence | Leaving]) -> tuple[list[Presence], list[str]]:
        """Who has come, to be told so, and which clients have gone."""
        come: list[Presence] = []
        gone: list[str] = []
        for change in changes:
            if isinstance(change, Leaving):
                self._leaving.add(change.client_id)
                continue
            known = self._clients.setdefault(change.client_id, [])
            if not change.present:
                if self._has_left(change, known):
                    gone.append(change.client_id)
                continue
            # XPUB tells of every subscription to a topic, but only of the last one's end.
            if change.filters not in known:
                known.append(change.filters)
                self._describe(change.client_id)
            if change.claim is not None:
                self._claims.setdefault(change.client_id, change.claim)
                self._settle_claims()  # before it is told so
            come.append(change)
        return come, gone

    def _has_left(self, change: Presence, known: list[FilterSet]) -> bool:
        if change.filters in known:  # a client that changes filters is there twice for a moment
            known.remove(change.filters)
        if known:
            self._describe(change.client_id)
            return False
        del self._clients[change.client_id]
        self._infos.pop(change.client_id, None)
        self._replayer.served.pop(change.client_id, None)
        self._claims.pop(change.client_id, None)
        self._settle_claims()
        return True

    def _describe(self, client_id: str) -> None:
        """Notes what the state says of a client; of a thousand not anew each time."""
        shown = self._clients[client_id][-1].text[:_SHOWN]
        served = self._replayer.served.get(client_id, Served())
        self._infos[client_id] = ClientInfo(client_id, shown, *served)

    def _settle_claims(self) -> None:
        """Has the send thread refuse all but the holder, if that is another one now."""
        holder = next((Holder(*claim) for claim in self._claims.items()), None)
        if holder != self._holder:
            self._holder = holder
            self._sender.put(Exclusive(holder))

    # --------------------------------------------------------------------------------- state

    def _publish_state(self, now: int) -> None:
        self._totals.period(now)
        if self._publisher.settled(now) and self._backend is not None:
            self._backend.filter(self._publisher.wanted())
        if held := self._storms.report(now):
            what = f"{held:,} error frames were counted, not passed on"
            _logger.warning("channel %r has an error storm: %s", self._channel, what)
        self._publisher.state(self._state(now))
        self._state_told = now
        # Without clients nobody decides by it within a second and a half.
        self._state_due = now + (STATE_INTERVAL_NS if self._clients else 2 * STATE_INTERVAL_NS)

    def _state(self, now: int) -> StateEvent:
        backend, totals = self._backend, self._totals
        queued, refused = self._sender_counts()
        condition = backend.condition if backend else BusCondition(off=True, reason=self._reason)
        state = "passive" if backend and backend.listen_only else "active"
        return StateEvent(
            state="error" if condition.off else state,
            reason=condition.reason,
            info=backend.info if backend else "",
            bitrate=backend.bitrate if backend else None,
            data_bitrate=backend.data_bitrate if backend else None,
            fd=bool(backend and backend.fd),
            monotonic_ns=now,
            wall_ns=clock.wall_ns(),
            received=totals.received,
            transmitted=totals.transmitted,
            failed=totals.failed,
            dropped=self._publisher.dropped_upstream,
            received_rate=totals.received_rate,
            transmitted_rate=totals.transmitted_rate,
            load=totals.load if backend and backend.bitrate else None,
            queued=queued,
            routes=len(self._publisher),
            interruptions=totals.interruptions,
            refused=refused + self._publisher.refused.counts.total(),
            clients=list(self._infos.values()),
            counters=backend.counters() if backend else {},
            held_errors=dict(self._storms.held),
            exclusive=self._holder,
            ended=self._ends,
            connected=self._publisher.listening.peers(),
        )
