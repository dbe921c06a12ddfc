"""The send thread of a channel actor: serves transmit requests in order and answers each."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from canbroker.actors.channel.discards import Discards
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    CatchUp,
    ChangeState,
    Down,
    Exclusive,
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
from canbroker.backends import AdapterGoneError, Backend
from canbroker.system.priority import RealTime
from canbroker.transport.replier import Caller, Handler
from canbroker.wire import control
from canbroker.wire.replay import History, Hold, Replay


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
        self._queue = TransmitQueue(wiring.channel, wiring.epoch, self._ports.reply)
        self.waiter = self._ports.waiter

    def counts(self) -> tuple[int, int]:
        """[any thread] Frames that wait for the adapter, and requests refused so far."""
        return self._queue.queued, self._ports.refused.counts.total()

    def due_ns(self) -> int | None:
        """As of :class:`Worker`."""
        lease_ns, due_ns = self._repeats.lease_ns, self._queue.due_ns()
        if lease_ns is None or due_ns is None:
            return lease_ns if due_ns is None else due_ns
        return min(due_ns, lease_ns)

    def step(
        self, now_ns: int, messages: Sequence[SenderMessage], ready: Container[object]
    ) -> bool:
        """As of :class:`Worker`."""
        for message in messages:
            if not self._handle(message, now_ns):
                return False
        ports, queue = self._ports, self._queue
        if ports.control in ready:
            ports.serve()
        if ports.transmit in ready:
            # Many requests may arrive at once: what is due meanwhile does not wait for them.
            ports.receive(queue.accept, queue.due_ns())
            self._serve_discards()
        if queue.queued or queue.scheduled:
            self._hand_over(now_ns)
        self._repeats.step(now_ns)
        ports.attend(ready)
        if queue.scheduled:
            self._real_time.want()
        else:
            self._real_time.update()
        return True

    def close(self) -> None:
        self._ports.close()

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: SenderMessage, now_ns: int) -> bool:
        match message:
            case Finished(transmits):
                self._queue.finish(transmits, now_ns)
                self._serve_discards()
            case Gone(client_ids):
                self._forget(client_ids)
            case Exclusive(holder):
                self._queue.lock(holder)
                self._repeats.lock(holder)
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
        self._ports.receive_all(self._queue.accept)
        for client_id in client_ids:
            self._repeats.forget(client_id)
        self._queue.forget(client_ids)

    def _hand_over(self, now_ns: int) -> None:
        try:
            is_awaited = self._queue.hand_over(now_ns)
            if is_awaited and self._backend and self._backend.coalescing.expect(now_ns):
                self._wiring.receiver.put(Expect())
        except AdapterGoneError as error:
            backend, self._backend = self._backend, None
            self._repeats.use(None)
            if backend is not None:
                self._wiring.keeper.put(Lost(backend, str(error)))

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
        self._discards.serve(self._queue.accounts, self._queue.discard, self._ports.answer)
