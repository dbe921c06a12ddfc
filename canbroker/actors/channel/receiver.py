"""The recv thread of a channel actor: reads the adapter, publishes, and tracks the clients."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from typing import Final, Protocol

from canbroker.actors.channel.error_storms import ErrorStorms
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    CatchUp,
    Down,
    Expect,
    Gone,
    HoldRoute,
    LetGo,
    Lost,
    ReceiverMessage,
    Stop,
    Up,
)
from canbroker.actors.channel.presence import Clients
from canbroker.actors.channel.totals import Totals
from canbroker.actors.channel.wiring import Wiring
from canbroker.backends import AdapterGoneError, Backend, BusCondition, Transmit
from canbroker.delivery.publisher import HEARTBEAT_NS, Publisher
from canbroker.delivery.replayer import Replayer
from canbroker.model.frame import ERROR, Frame
from canbroker.system import clock
from canbroker.system.naps import ARE_EXACT
from canbroker.transport.waiter import SharedWaiter
from canbroker.wire import control
from canbroker.wire.replay import Replay
from canbroker.wire.stream import AdapterClock, Holder, StateEvent, echo, encode_state
from canbroker.wire.transmit import Status

#: Clients assume that a channel is gone after three times this long without a word from it.
STATE_INTERVAL_NS: Final = clock.SECOND // 2

#: Minimum interval between states while clients come and go, for each pair of clients: the state
#: names all of them to each of them. 40 µs for ten; 0.4 s for a thousand, whose states have 100 MB.
_PACE_NS_PER_PAIR: Final = 400

#: Heartbeats may be early by this much, which is the precision of longer waits: the thread need not
#: wake up once more for the rest.
_EARLY_NS: Final = clock.MILLISECOND

#: Requests for frames of the past that wait for their turn; each costs about a millisecond.
_MAX_ASKED: Final = 1024

#: For each unit of time spent on frames of the past, this many belong to those of the present.
_PRESENT_SHARE: Final = 3

_logger = logging.getLogger(__name__)


class TransmitSide(Protocol):
    """What a receiver needs of :class:`Sender`, which works in other turns."""

    @property
    def queued(self) -> int: ...

    @property
    def refused(self) -> int: ...

    def finished(self, transmits: Sequence[Transmit], now_ns: int) -> None: ...

    def lock(self, holder: Holder | None) -> None: ...

    def answer_ns(self) -> int | None: ...

    def refill(self, now_ns: int) -> None: ...


class Receiver:
    """The work of the recv thread; see :class:`Worker` for how it is stepped."""

    def __init__(
        self,
        wiring: Wiring,
        waiter: SharedWaiter,
        publisher: Publisher,
        replayer: Replayer,
        storms: ErrorStorms,
        sender: TransmitSide,
    ) -> None:
        """``waiter`` watches the publisher, and the adapter while there is one; the receiver closes
        the ``publisher``."""
        self.waiter = waiter
        self._wiring = wiring
        self._publisher = publisher
        self._replayer = replayer
        self._storms = storms
        self._sender = sender
        self._is_closed = False
        self._has_finished = False  # transmits have ended, and left room
        self._clients = Clients(replayer.served)
        self._totals = Totals()
        self._backend: Backend | None = None
        self._reason = "the adapter is not open"
        self._ends = False  # for good
        self._condition = BusCondition()  # as last published
        self._holder: Holder | None = None  # as the send thread was told
        self._asked: dict[bytes, Ask] = {}  # by the connection that asks
        self._replay_due = 0
        self._state_due = 0
        self._state_told = 0
        self._heartbeat_due: int | None = None  # None: there are no routes
        #: While the adapter pauses, it is not watched, and read then; None: it does not pause.
        self._pause_ends: int | None = None

    def due_ns(self) -> int:
        """As of :class:`Worker`."""
        # While there are heartbeats, the state is published with one of them: an idle process
        # should rarely wake up.
        due = self._state_due if self._heartbeat_due is None else self._heartbeat_due
        if self._asked:
            due = min(due, self._replay_due)
        if self._pause_ends is not None:
            due = min(due, self._pause_ends)
        backend = self._backend
        if backend is None:
            return due
        answer_ns = None if backend.immediate else self._sender.answer_ns()
        return min(each for each in (due, backend.due_ns(), answer_ns) if each is not None)

    def step(self, now_ns: int, messages: Sequence[ReceiverMessage], ready: Set[object]) -> bool:
        """As of :class:`Worker`."""
        for message in messages:
            if not self._handle(message, now_ns):
                return False
        if self._publisher.socket in ready:
            self._take_presence(now_ns)
        backend = self._backend
        if backend is not None and (backend in ready or self._is_due(backend, now_ns)):
            self._read(backend, now_ns)
        beats = self._heartbeat_due is not None and now_ns >= self._heartbeat_due - _EARLY_NS
        if now_ns >= self._state_due - (_EARLY_NS if beats else 0):
            self._publish_state(now_ns)
        if beats:
            self._heartbeat_due = self._publisher.heartbeat(now_ns)
        if self._asked and now_ns >= self._replay_due:
            self._replay(self._asked.pop(next(iter(self._asked))), now_ns)
        self._publisher.listening.attend(ready)
        answer_ns = self._sender.answer_ns()
        if self._has_finished or (answer_ns is not None and now_ns >= answer_ns):
            self._has_finished = False
            self._sender.refill(now_ns)
        self._publisher.look(self.waiter)
        return True

    def close(self) -> None:
        self._is_closed = True
        self._publisher.close(self._reason)

    def read_at_once(self, now_ns: int) -> None:
        """[send thread, in its turn] Reads what an immediate backend has just been sent."""
        if self._backend is None or self._is_closed:
            return
        self._read(self._backend, now_ns)
        self._has_finished = False
        if self._publisher.look(self.waiter) or not self._state_due:
            self._wiring.receiver.wake()

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: ReceiverMessage, now_ns: int) -> bool:
        match message:
            case Up(backend):
                self._backend = backend
                self._reason = ""
                self.waiter.add(backend)
                backend.filter(self._publisher.wanted())
                self._state_due = 0
                if backend.immediate:  # the send thread may have used it before
                    self._read(backend, now_ns)
            case Down(reason, status):
                self._drop_backend(reason, now_ns, ends=status is Status.SHUTTING_DOWN)
                self._wiring.keeper.put(LetGo("recv"))
            case CatchUp(caller):
                if self._backend is not None:
                    self._read(self._backend, now_ns)
                self._wiring.sender.put(Answer(caller, control.Nothing()))
            case Expect():
                self._watch_again()
            case HoldRoute(caller, params):
                self._wiring.sender.put(Answer(caller, self._publisher.hold(params)))
            case Ask():
                self._ask(message)
            case Stop(reason, for_good):
                self._reason, self._ends = reason, for_good
                self._publish_state(now_ns)
                return False
        return True

    def _drop_backend(self, reason: str, now_ns: int, *, ends: bool = False) -> None:
        self._reason = reason
        if self._backend is not None:
            if self._pause_ends is None:
                self.waiter.remove(self._backend)
            self._pause_ends = None
            self._totals.dropped_before += self._backend.dropped
            self._totals.interruptions += not ends
            self._backend = None
        self._publish_state(now_ns)

    # -------------------------------------------------------------------------------- frames

    def _read(self, backend: Backend, now_ns: int) -> None:
        try:
            items = backend.read()
        except AdapterGoneError as error:
            self._drop_backend(str(error), now_ns)
            self._wiring.keeper.put(Lost(backend, str(error)))
            return
        if backend.condition != self._condition:
            self._condition = backend.condition
            self._state_due = 0
        frames: list[Frame] = []
        finished: list[Transmit] = []
        held = 0
        for item in items:
            if isinstance(item, Frame):
                if item.flags & ERROR and not self._storms.passes(item, now_ns):
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
            # After the echo: a client with an answer can rely on the frame having been published.
            self._sender.finished(finished, now_ns)
            self._has_finished = True
        if not backend.immediate:
            self._pause(backend, len(items), finished, now_ns)

    def _is_due(self, backend: Backend, now_ns: int) -> bool:
        if self._pause_ends is not None and now_ns >= self._pause_ends:
            return True
        due_ns = backend.due_ns()
        return due_ns is not None and due_ns <= now_ns

    def _pause(
        self, backend: Backend, count: int, finished: Sequence[Transmit], now_ns: int
    ) -> None:
        """Leaves the adapter unread for a while, if it has so much to say that this is cheaper."""
        coalescing = backend.coalescing
        frames_wait = self._sender.queued > 0
        if not frames_wait and any(transmit.sender == transmit.origin for transmit in finished):
            coalescing.expect(now_ns)
        pause_ns = coalescing.pause_ns(count, now_ns, urgent=frames_wait or not ARE_EXACT)
        if not pause_ns:
            self._watch_again()
            return
        if self._pause_ends is None:
            self.waiter.remove(backend)
        self._pause_ends = now_ns + pause_ns

    def _watch_again(self) -> None:
        """Ends a pause: the adapter is read as soon as it has something."""
        if self._pause_ends is not None and self._backend is not None:
            self.waiter.add(self._backend)
        self._pause_ends = None

    # ------------------------------------------------------------------- frames of the past

    def _ask(self, ask: Ask) -> None:
        """Queues a request; of each connection only the last one is kept, the other is refused."""
        refused = self._asked.get(ask.caller.identity)
        if refused is not None or len(self._asked) < _MAX_ASKED:
            self._asked[ask.caller.identity] = ask
        else:
            refused = ask
        if refused is not None:
            busy = control.ErrorResult("busy", "too many ask for frames of the past")
            self._wiring.sender.put(Answer(refused.caller, busy))

    def _replay(self, ask: Ask, now_ns: int) -> None:
        """Answers a request, or does a part of the work; then the next one has to wait."""
        began_ns = clock.monotonic_ns()
        params = ask.params
        answer = (
            self._replayer.replay(params)
            if isinstance(params, Replay)
            else self._replayer.history(params)
        )
        cost_ns = clock.monotonic_ns() - began_ns
        self._replay_due = now_ns + (1 + _PRESENT_SHARE) * cost_ns
        if answer is None:
            self._asked.setdefault(ask.caller.identity, ask)
            return
        served = self._replayer.served
        for client_id in [client_id for client_id in served if client_id not in self._clients]:
            del served[client_id]
        if isinstance(params, Replay) and params.client_id in served:
            self._clients.describe(params.client_id)
        self._wiring.sender.put(Answer(ask.caller, answer))

    # ------------------------------------------------------------------------------ presence

    def _take_presence(self, now_ns: int) -> None:
        changes = self._publisher.subscriptions()
        if self._backend is not None:
            # Before any client is told "ready", because it then relies on the filter.
            self._backend.filter(self._publisher.wanted())
        come, gone = self._clients.note(changes)
        if self._clients.holder != self._holder:  # also before "ready"
            self._holder = self._clients.holder
            self._sender.lock(self._holder)
        if gone:
            self._wiring.sender.put(Gone(gone))
        for client_id in self._clients.left():
            self._publisher.left(client_id)
        if come:
            state = encode_state(self._state())
            for change in come:
                self._publisher.ready(change, state)
        if come or gone or self._publisher.state_asked:
            # A client that has just joined gets the state soon. When a thousand join, not each of
            # them makes the channel send the names of all to all.
            pace_ns = _PACE_NS_PER_PAIR * len(self._clients) ** 2
            self._state_due = min(self._state_due, self._state_told + pace_ns)
        if self._publisher.greet() and self._heartbeat_due is None:
            self._heartbeat_due = now_ns + HEARTBEAT_NS

    # --------------------------------------------------------------------------------- state

    def _publish_state(self, now_ns: int) -> None:
        self._totals.period(now_ns)
        fewer = self._publisher.stop_keeping_all(now_ns) | self._publisher.end_holds(now_ns)
        if fewer and self._backend is not None:
            self._backend.filter(self._publisher.wanted())
        if held := self._storms.report(now_ns):
            what = f"{held:,} error frames were counted, not passed on"
            _logger.warning("channel %r has an error storm: %s", self._wiring.channel, what)
        self._publisher.state(self._state())
        self._state_told = now_ns
        # Without clients, no one depends on a state within 1.5 s.
        self._state_due = now_ns + (STATE_INTERVAL_NS if self._clients else 2 * STATE_INTERVAL_NS)

    def _state(self) -> StateEvent:
        backend, totals = self._backend, self._totals
        condition = backend.condition if backend else BusCondition(off=True, reason=self._reason)
        state = "passive" if backend and backend.listen_only else "active"
        return StateEvent(
            state="error" if condition.off else state,
            reason=condition.reason,
            info=backend.info if backend else "",
            bitrate=backend.bitrate if backend else None,
            data_bitrate=backend.data_bitrate if backend else None,
            fd=bool(backend and backend.fd),
            # Read together, not handed in: the pair relates one clock to the other.
            monotonic_ns=clock.monotonic_ns(),
            wall_ns=clock.wall_ns(),
            received=totals.received,
            transmitted=totals.transmitted,
            failed=totals.failed,
            dropped=self._publisher.dropped_upstream,
            received_rate=totals.received_rate,
            transmitted_rate=totals.transmitted_rate,
            load=totals.load if backend and backend.bitrate else None,
            queued=self._sender.queued,
            routes=len(self._publisher),
            interruptions=totals.interruptions,
            gone=self._replayer.gone,
            refused=self._sender.refused + self._publisher.refused.counts.total(),
            clients=self._clients.infos(),
            counters=backend.counters() if backend else {},
            held_errors=dict(self._storms.held),
            error_counters=backend.error_counters() if backend else None,
            exclusive=self._holder,
            ended=self._ends,
            connected=self._publisher.listening.peers(),
            clock=_clock_of(backend),
        )


def _clock_of(backend: Backend | None) -> AdapterClock | None:
    stamps = None if backend is None else backend.stamp_clock()
    return None if stamps is None else AdapterClock(*stamps)
