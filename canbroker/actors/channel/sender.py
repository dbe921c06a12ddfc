"""The send thread of a channel actor: serves transmit requests in order and answers each."""

from __future__ import annotations

import bisect
import itertools
import logging
import operator
from collections.abc import Sequence
from typing import Final

from canbroker.actors.channel.accounts import Account, Pending
from canbroker.actors.channel.discards import Discards
from canbroker.actors.channel.messages import (
    Answer,
    Ask,
    ChangeState,
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
from canbroker.actors.channel.repeats import Repeats
from canbroker.actors.mailbox import Mailbox
from canbroker.backends import LISTEN_ONLY, AdapterGoneError, Backend, Transmit
from canbroker.system import clock
from canbroker.system.priority import RealTime
from canbroker.system.throttle import Throttle
from canbroker.transport.address import Address
from canbroker.transport.links import Intake
from canbroker.transport.listening import LOOK_NS
from canbroker.transport.replier import Caller, Replier
from canbroker.transport.sockets import Context, readable
from canbroker.transport.waiter import Waiter
from canbroker.wire import WireError, control
from canbroker.wire.replay import REPLAY_METHODS, History, Replay
from canbroker.wire.stream import Holder, locked_by
from canbroker.wire.tasks import REPEAT_METHODS
from canbroker.wire.transmit import CREDIT, Request, Status, decode_request, encode_reply

#: Requests taken from the socket before the backend and the replies get their turn.
_DRAIN: Final = 256

#: Frames that one client hands over before it is the next one's turn.
_TURN: Final = 8

#: After so many requests that are none, the socket rests. Connections take turns, so one of two
#: is somebody else's.
_GARBAGE: Final = 2

_MAX_ACCOUNTS: Final = 1024

#: Control replies that are kept for a peer that does not read: those with frames have half a MiB.
_UNREAD: Final = 128

_LOST: Final = "the connection was lost"

_time: Final = operator.itemgetter(0)  # of what is kept until then

_logger = logging.getLogger(__name__)


class Sender:
    """One step of the send thread at a time; owns the ROUTERs of transmit and control."""

    def __init__(
        self,
        context: Context,
        channel: str,
        endpoints: tuple[Address, Address],
        epoch: int,
        inbox: Mailbox[SenderMessage],
        keeper: Mailbox[KeeperMessage],
        receiver: Mailbox[ReceiverMessage],
    ) -> None:
        """``endpoints``: transmit, control.

        :raises CanInitializationError: one of them cannot be bound.
        """
        self.queued = 0  # frames that wait for the driver, for the status
        self.refused = Throttle(_logger)
        self._channel = channel
        self._epoch = epoch
        self._inbox = inbox
        self._keeper = keeper
        self._backend: Backend | None = None
        self._down: tuple[Status, str] = (Status.DEVICE_GONE, "the adapter is not open")
        self._holder: Holder | None = None  # who alone may transmit
        self._accounts: dict[str, Account] = {}
        self._keeping: dict[Account, None] = {}  # those with frames whose time has not come
        self._real_time = RealTime()
        self._discards = Discards()
        self._receiver = receiver
        self._repeats = Repeats(lambda caller: receiver.put(Settle(caller)))
        self._intake = Intake(context, endpoints[0], self.refused)
        try:
            self._control = Replier(
                context,
                endpoints[1],
                {**control.CHANNEL_METHODS, **REPEAT_METHODS, **REPLAY_METHODS},
                {
                    "set_state": self._set_state,
                    "discard": self._discard,
                    "replay": self._ask,
                    "history": self._ask,
                    **self._repeats.handlers,
                },
                self.refused,
                _UNREAD,
            )
        except BaseException:
            self._intake.close()
            raise
        self._waiter = Waiter()
        self._listening = (self._intake.listening, self._control.listening)
        self._waiter.add(inbox)
        for router in (self._intake, self._control):
            self._waiter.add(router.socket)
            self._waiter.add(router.listening.monitor)

    def step(self) -> bool:
        """Waits for something to do and does it; ``False`` when told to stop."""
        if self._keeping:  # frames that have a time
            self._real_time.want()
        else:
            self._real_time.update()
        patience = self._patience()
        ready = self._waiter.wait(LOOK_NS if patience is None else min(patience, LOOK_NS))
        if self._inbox in ready:
            for message in self._inbox.take():
                if not self._handle(message):
                    return False
        if self._control.socket in ready:
            self._control.serve(self._waiter)
        if self._intake.socket in ready:
            self._take_requests()
            self._serve_discards()
        if self._keeping:
            now = clock.monotonic_ns()
            for account in list(self._keeping):
                self._let_go(account, now)
        self._hand_over()
        self._repeats.step()
        for listening in self._listening:
            listening.attend(ready)
        return True

    def close(self) -> None:
        self._intake.close()
        self._control.close()

    # ------------------------------------------------------------------------------ messages

    def _handle(self, message: SenderMessage) -> bool:
        match message:
            case Finished(transmits):
                self._finish(transmits)
            case Gone(client_ids):
                self._forget(client_ids)
            case Exclusive(holder):
                self._holder = holder
                self._repeats.lock(holder)
            case Answer(caller, result):
                self._control.reply(caller, result)
            case Up(backend):
                self._backend = backend
                self._repeats.use(backend)
            case Down(reason, status):
                self._backend = None
                self._repeats.use(None)
                self._down = (status, reason)
                for account in self._accounts.values():
                    self._drop_waiting(account, status, reason)
                self._keeper.put(LetGo("send"))
            case Stop(reason):
                error = control.ErrorResult("shutting-down", reason)
                self._discards.refuse(error, self._control.reply)
                return False
        return True

    def _finish(self, transmits: Sequence[Transmit]) -> None:
        """Books transmits that have ended and answers the requests that this completes."""
        now = clock.monotonic_ns()
        touched: dict[str, Account] = {}
        for transmit in transmits:
            account, pending, index = transmit.request
            if transmit.failure is None:
                pending.accepted += 1
                pending.timestamp_ns = transmit.timestamp_ns
            else:
                pending.fail(index, self._status_of(transmit, now), transmit.failure)
            pending.remaining -= 1
            account.outstanding -= 1
            touched[account.client_id] = account
        for account in touched.values():
            self._answer(account)
        self._serve_discards()

    def _status_of(self, transmit: Transmit, now: int) -> Status:
        if transmit.unknown:
            return Status.UNKNOWN
        if self._backend is None:
            return self._down[0]
        if self._backend.condition.off:
            return Status.BUS_OFF
        return Status.EXPIRED if 0 < transmit.expires_ns <= now else Status.REFUSED

    def _answer(self, account: Account) -> None:
        """Replies to the requests at the head that are complete; one for a run of good ones."""
        done: Pending | None = None
        while account.unanswered and account.unanswered[0].remaining == 0:
            pending = account.unanswered.popleft()
            if pending.status is not Status.OK:
                if done is not None:  # a reply that is not OK says nothing of those before
                    self._reply(account, done)
                self._reply(account, pending)
                done = None
            else:
                done = pending
        if done is not None:
            self._reply(account, done)

    def _reply(self, account: Account, pending: Pending) -> None:
        self._intake.reply(
            account.identity,
            encode_reply(
                pending.token,
                pending.status,
                pending.accepted,
                pending.timestamp_ns,
                pending.reason,
                pending.failed,
            ),
        )

    # ------------------------------------------------------------------------------ requests

    def _take_requests(self) -> bool:
        """Takes so many; whether that was all."""
        garbage = 0
        for number in range(_DRAIN):
            if number == 1 and not readable(self._intake.socket):  # as a rule; else Again is dearer
                return True
            received = self._intake.receive()
            if received is None:
                return True
            identity, body = received
            if body is None:
                continue
            try:
                request = decode_request(body)
            except WireError as error:
                self.refused.note("transmit request refused", str(error))
                reply = encode_reply(0, Status.MALFORMED, 0, 0, str(error))
                self._intake.refuse(identity, reply, self._waiter)
                garbage += 1
                if garbage == _GARBAGE:
                    return False
                continue
            self._accept(identity, request)
        return False

    def _accept(self, identity: bytes, request: Request) -> None:
        account = self._account(identity, request)
        count = len(request.frames)
        account.token = request.token
        if account.outstanding + count > CREDIT:
            # At once, out of order: keeping what a client sends without credit has no bound.
            reason = f"more than {CREDIT} frames unanswered"
            reply = encode_reply(request.token, Status.QUEUE_FULL, 0, 0, reason, [*range(count)])
            self._intake.reply(identity, reply)
            return
        pending = Pending(request.token, count)
        account.unanswered.append(pending)
        account.outstanding += count
        refusal = self._refusal(request)
        if refusal is not None:
            self._fail(account, pending, range(count), *refusal)
            self._answer(account)
            return
        now = clock.monotonic_ns()
        client_id, expires_ns = account.client_id, request.expires_ns
        origins = request.origins or itertools.repeat(client_id)
        at = max(now, request.due_ns)
        transmits = [
            Transmit(frame, client_id, (account, pending, index), at, expires_ns, origin)
            for index, (frame, origin) in enumerate(zip(request.frames, origins, strict=False))
        ]
        if account.kept and account.kept[0][0] <= now:  # it was their turn before
            self._let_go(account, now)
        if at > now:
            bisect.insort(account.kept, (at, transmits), key=_time)
            self._keeping[account] = None
        else:
            account.waiting.extend(transmits)
            self.queued += count

    def _account(self, identity: bytes, request: Request) -> Account:
        client_id = request.client_id
        account = self._accounts.get(client_id)
        if account is not None and account.identity == identity:
            return account
        if account is not None:
            # On a new connection. What was queued on the old one is stale, and never sent.
            self._drop_waiting(account, Status.STALE, _LOST)
        elif len(self._accounts) >= _MAX_ACCOUNTS:
            # Peers that transmit without being subscribed leave no word when they go.
            self._accounts = {k: v for k, v in self._accounts.items() if v.outstanding}
        if request.token > 1:
            # It has sent before, on a connection that is gone: nobody else will answer for that.
            lost = encode_reply(request.token - 1, Status.STALE, 0, 0, _LOST)
            self._intake.reply(identity, lost)
        account = self._accounts[client_id] = Account(client_id, identity)
        return account

    def _refusal(self, request: Request) -> tuple[Status, str] | None:
        """Why nothing of the request can be sent, if so."""
        if request.epoch not in {0, self._epoch}:
            return Status.STALE, f"channel {self._channel!r} was restarted since"
        if self._backend is None:
            return self._down
        if self._backend.condition.off:
            return Status.BUS_OFF, self._backend.condition.reason
        if self._backend.listen_only:
            return Status.NOT_PERMITTED, LISTEN_ONLY
        for frame in request.frames:
            fault = self._backend.fault(frame)
            if fault is not None:
                return Status.INVALID_FRAME, fault
        return None

    # -------------------------------------------------------------------------------- driver

    def _patience(self) -> int | None:
        """Nanoseconds until something is due; ``None`` if nothing is."""
        patience = self._repeats.patience()
        if not self._keeping:
            return patience
        due_ns = min(account.kept[0][0] for account in self._keeping)
        left = max(0, due_ns - clock.monotonic_ns())
        return left if patience is None else min(left, patience)

    def _let_go(self, account: Account, now: int | None) -> None:
        """Queues a client's frames whose time has come; ``None``: all that are kept."""
        kept = account.kept
        while kept and (now is None or kept[0][0] <= now):
            _, transmits = kept.pop(0)
            account.waiting.extend(transmits)
            self.queued += len(transmits)
        if not kept:
            self._keeping.pop(account, None)

    def _hand_over(self) -> None:
        """Gives the driver what it has room for, the clients taking turns."""
        backend = self._backend
        if backend is None or not self.queued:
            return
        waiting = [account for account in self._accounts.values() if account.waiting]
        while waiting:
            turn = _TURN if len(waiting) > 1 else CREDIT
            for account in list(waiting):
                room = min(backend.room(account.client_id), turn)
                if not room:
                    waiting.remove(account)
                    continue
                # Whoever got room goes to the end of the line for the next time, too.
                self._accounts[account.client_id] = self._accounts.pop(account.client_id)
                if not self._send(backend, account, room):
                    return
                if not account.waiting:
                    waiting.remove(account)

    def _send(self, backend: Backend, account: Account, count: int) -> bool:
        """Hands over the next ``count`` frames of a client; ``False`` if the adapter is gone."""
        now = clock.monotonic_ns()
        batch: list[Transmit] = []
        while account.waiting and len(batch) < count:
            transmit = account.waiting.popleft()
            self.queued -= 1
            refusal = self._hindrance(transmit, now)
            if refusal is None:
                batch.append(transmit)
            else:
                _, pending, index = transmit.request
                self._fail(account, pending, (index,), *refusal)
        self._answer(account)
        try:
            backend.send(batch)
        except AdapterGoneError as error:
            # The batch comes back from abandon(), when the keeper closes the backend.
            self._backend = None
            self._repeats.use(None)
            self._down = (Status.DEVICE_GONE, str(error))
            self._keeper.put(Lost(backend, str(error)))
            return False
        return True

    def _hindrance(self, transmit: Transmit, now: int) -> tuple[Status, str] | None:
        """Why a frame whose turn it is cannot be sent, if so."""
        if 0 < transmit.expires_ns <= now:
            return Status.EXPIRED, "expired before the adapter had room"
        if self._holder is not None and transmit.origin != self._holder.client_id:
            return Status.LOCKED, locked_by(self._holder)
        return None

    # ------------------------------------------------------------------------------ failures

    def _fail(
        self,
        account: Account,
        pending: Pending,
        indexes: Sequence[int],
        status: Status,
        reason: str,
    ) -> None:
        for index in indexes:
            pending.fail(index, status, reason)
        pending.remaining -= len(indexes)
        account.outstanding -= len(indexes)

    def _drop_waiting(self, account: Account, status: Status, reason: str) -> int:
        self._let_go(account, None)
        dropped = len(account.waiting)
        while account.waiting:
            _, pending, index = account.waiting.popleft().request
            self._fail(account, pending, (index,), status, reason)
        self.queued -= dropped
        self._answer(account)
        return dropped

    def _forget(self, client_ids: Sequence[str]) -> None:
        # What they sent before they left is dropped with what waits. Taken later it would be
        # sent, as if somebody new had sent it.
        for _ in range(CREDIT // _DRAIN):
            if self._take_requests():
                break
        for client_id in client_ids:
            self._repeats.forget(client_id)
            account = self._accounts.pop(client_id, None)
            if account is not None:
                self._drop_waiting(account, Status.DISCARDED, "the client has left")

    # ------------------------------------------------------------------------------- control

    def _set_state(self, caller: Caller, params: control.SetState) -> control.ErrorResult | None:
        if params.state not in {"active", "passive"}:
            return control.ErrorResult("invalid", f"no such state: {params.state!r}")
        self._keeper.put(ChangeState(caller, listen_only=params.state == "passive"))
        return None

    def _ask(self, caller: Caller, params: Replay | History) -> None:
        self._receiver.put(Ask(caller, params))

    def _discard(self, caller: Caller, params: control.Discard) -> None:
        self._discards.ask(caller, params)
        self._serve_discards()

    def _serve_discards(self) -> None:
        self._discards.serve(self._accounts, self._discarded, self._control.reply)

    def _discarded(self, account: Account) -> int:
        return self._drop_waiting(account, Status.DISCARDED, "discarded by the client")
