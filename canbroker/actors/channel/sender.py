"""The send thread of a channel actor: serves transmit requests in order and answers each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from canbroker.actors.channel.discards import Discards
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    CatchUp,
    ChangeState,
    Down,
    Expect,
    Finished,
    Gone,
    HoldRoute,
    LetGo,
    Lost,
    SenderMessage,
    Stop,
    Up,
)
from canbroker.actors.channel.ports import Ports
from canbroker.actors.channel.repeats import Repeats
from canbroker.actors.channel.transmit_queue import TransmitQueue
from canbroker.actors.channel.wiring import Wiring
from canbroker.backends import AdapterGoneError, Backend, Transmit
from canbroker.system.priority import RealTime
from canbroker.transport.replier import Caller, Handler
from canbroker.wire import control
from canbroker.wire.replay import History, Hold, Replay
from canbroker.wire.stream import Holder
from canbroker.wire.transmit import Request


class Sender:
    """The work of the send thread; see :class:`Worker` for how it is stepped."""

    def __init__(
        self,
        wiring: Wiring,
        open_ports: Callable[[Mapping[str, Handler]], Ports],
        real_time: RealTime,
    ) -> None:
        """``open_ports`` opens the sockets, given the handlers of the control methods;
        ``real_time`` is asked for while frames are due at a certain time.

        :raises CanInitializationError: an endpoint cannot be bound.
        """
        self._wiring = wiring
        self._real_time = real_time
        self._backend: Backend | None = None
        self._discards = Discards()
        self._repeats = Repeats(lambda caller: wiring.receiver.put(CatchUp(caller)))
        self._ports = open_ports(
            {
                "set_state": self._set_state,
                "discard": self._discard,
                "replay": self._ask,
                "history": self._ask,
                "hold": self._hold,
                **self._repeats.handlers,
            }
        )
        self._queue = TransmitQueue(
            wiring.channel, wiring.epoch, self._ports.reply, self._hand_to_driver
        )
        self.waiter = self._ports.waiter
        self._is_closed = False
        #: Reads an immediate backend, publishes what it has read, and reports it as
        #: :meth:`finished`. To be set before there is a backend.
        self.read: Callable[[int], None] = _nothing_to_read

    @property
    def queued(self) -> int:
        """[any thread] Frames that wait for the adapter."""
        return self._queue.queued

    @property
    def refused(self) -> int:
        """[any thread] Requests refused so far."""
        return self._ports.refused.counts.total()

    def due_ns(self) -> int | None:
        """As of :class:`Worker`."""
        answer_ns = None
        if self._backend is not None and self._backend.immediate:  # else the recv thread does it
            answer_ns = self._queue.answer_ns()
        due = (self._repeats.lease_ns, self._queue.due_ns(), answer_ns)
        return min((due_ns for due_ns in due if due_ns is not None), default=None)

    def step(self, now_ns: int, messages: Sequence[SenderMessage], ready: Set[object]) -> bool:
        """As of :class:`Worker`."""
        for message in messages:
            if not self._handle(message, now_ns):
                return False
        ports, queue = self._ports, self._queue
        if ports.control in ready:
            ports.serve()
        if ports.transmit in ready:
            # Many requests may arrive at once: what is due meanwhile does not wait for them.
            ports.receive(self._accept, queue.due_ns())
            self._serve_discards()
        if queue.queued or queue.scheduled:
            self._hand_over(now_ns)
        if queue.late:
            queue.answer_late(now_ns)
        self._repeats.step(now_ns)
        ports.attend(ready)
        if queue.scheduled:
            self._real_time.want()
        else:
            self._real_time.update()
        ports.look()
        return True

    def close(self) -> None:
        self._is_closed = True
        self._ports.close()

    # ------------------------------------------------- what the recv thread does here in its turn

    def finished(self, transmits: Sequence[Transmit], now_ns: int) -> None:
        """Books and answers transmits that have ended, and whose echoes have been published."""
        if not self._is_closed:
            self._queue.finish(transmits, now_ns)
            self._serve_discards()

    def lock(self, holder: Holder | None) -> None:
        """Only this client may transmit from now on; ``None``: everyone."""
        self._queue.lock(holder)
        self._repeats.lock(holder)

    def answer_ns(self) -> int | None:
        """When :meth:`refill` is to be called, because an answer has waited long enough."""
        return self._queue.answer_ns()

    def refill(self, now_ns: int) -> None:
        """Uses the room that transmits have left which were :meth:`finished`. Call it last."""
        if self._is_closed:
            return
        self._queue.answer_late(now_ns)
        wakes = False
        if self._queue.queued and self._backend is not None:
            wakes = self._backend.blocks
            if not wakes:
                self._hand_over(now_ns)
        is_late = bool(self._queue.late) and self._backend is not None and self._backend.immediate
        if self._ports.look() or wakes or is_late:
            self._wiring.sender.wake()

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: SenderMessage, now_ns: int) -> bool:
        match message:
            case Finished(transmits):
                self._queue.finish(transmits, now_ns)
                self._serve_discards()
            case Gone(client_ids):
                self._forget(client_ids)
            case Answer(caller, result):
                self._ports.answer(caller, result)
            case Up(backend):
                self._backend = backend
                self._queue.use(backend)
                self._repeats.use(backend)
            case Down(reason, status):
                self._backend = None
                self._repeats.use(None)
                self._queue.take_down(status, reason)
                self._wiring.keeper.put(LetGo("send"))
            case Stop(reason):
                error = control.ErrorResult("shutting-down", reason)
                self._discards.refuse(error, self._ports.answer)
                return False
        return True

    def _forget(self, client_ids: Sequence[str]) -> None:
        # What they sent before they left is dropped, too. If it were received later, it would be
        # sent as if by a new client.
        self._ports.receive_all(self._accept)
        for client_id in client_ids:
            self._repeats.forget(client_id)
        self._queue.forget(client_ids)

    def _accept(self, identity: bytes, request: Request, now_ns: int) -> None:
        self._queue.accept(identity, request, now_ns)
        # Hundreds of requests may have arrived; the adapter's frames do not wait for all of them.
        self._wiring.turn.give_way()

    def _hand_over(self, now_ns: int) -> None:
        queue = self._queue
        try:
            is_awaited = queue.hand_over(now_ns)
            while self._backend is not None and self._backend.immediate:
                self.read(now_ns)
                left = queue.queued
                if left:
                    queue.hand_over(now_ns)
                if left == queue.queued:  # nothing waits, or the recv thread has let go of it
                    break
            if is_awaited and self._backend and self._backend.coalescing.expect(now_ns):
                self._wiring.receiver.put(Expect())
        except AdapterGoneError as error:
            backend, self._backend = self._backend, None
            self._repeats.use(None)
            if backend is not None:
                self._wiring.keeper.put(Lost(backend, str(error)))

    def _hand_to_driver(self, backend: Backend, transmits: Sequence[Transmit]) -> None:
        if not backend.blocks:
            backend.send(transmits)
            return
        self._wiring.turn.end()  # the recv thread goes on meanwhile
        try:
            backend.send(transmits)
        finally:
            self._wiring.turn.begin()

    # ------------------------------------------------------------------------------- control

    def _set_state(self, caller: Caller, params: control.SetState) -> control.ErrorResult | None:
        if params.state not in {"active", "passive"}:
            return control.ErrorResult("invalid", f"no such state: {params.state!r}")
        self._wiring.keeper.put(ChangeState(caller, listen_only=params.state == "passive"))
        return None

    def _ask(self, caller: Caller, params: Replay | History) -> None:
        self._wiring.receiver.put(Ask(caller, params))

    def _hold(self, caller: Caller, params: Hold) -> None:
        self._wiring.receiver.put(HoldRoute(caller, params))

    def _discard(self, caller: Caller, params: control.Discard) -> None:
        self._discards.ask(caller, params)
        self._serve_discards()

    def _serve_discards(self) -> None:
        if self._discards.waiting:
            self._discards.serve(self._queue.accounts, self._queue.discard, self._ports.answer)


def _nothing_to_read(now_ns: int) -> None:
    """Reads nothing: there is no recv thread yet."""
