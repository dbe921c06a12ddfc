"""Frames that clients asked to transmit, on their way to the driver. One thread at a time."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from canbroker.actors.channel.accounts import Account, Pending
from canbroker.backends import LISTEN_ONLY, AdapterGoneError, Backend, Transmit
from canbroker.wire.stream import Holder, locked_by
from canbroker.wire.transmit import CREDIT, UNHURRIED, Request, Status, encode_reply

#: Frames that one client hands over before it is the next one's turn.
_TURN: Final = 8

_MAX_ACCOUNTS: Final = 1024

_LOST: Final = "the connection was lost"

#: As :meth:`Backend.send` of the first argument.
Send: TypeAlias = Callable[[Backend, Sequence[Transmit]], None]

_due_ns: Final = operator.itemgetter(0)  # of scheduled frames


class TransmitQueue:
    """Accepts requests, hands their frames to the adapter, and answers each request once.

    Clients take turns; the frames of one client keep their order. A request is answered when all
    of its frames have ended, and one reply answers a run of successful requests. Times are
    monotonic ns.
    """

    def __init__(
        self, channel: str, epoch: int, reply: Callable[[bytes, bytes], None], send: Send
    ) -> None:
        """``reply`` sends an encoded reply to a connection; ``send`` hands frames to a backend."""
        self.queued = 0  # frames that wait for the adapter, without scheduled ones
        self.accounts: dict[str, Account] = {}  # by client, the next one's turn first
        self.scheduled: dict[Account, None] = {}  # accounts with frames that are not due yet
        self.late: dict[Account, None] = {}  # accounts with answers that wait for others
        self._channel = channel
        self._epoch = epoch
        self._reply = reply
        self._hand = send
        self._backend: Backend | None = None
        self._down: tuple[Status, str] = (Status.DEVICE_GONE, "the adapter is not open")
        self._holder: Holder | None = None
        self._latest_ns = 0  # when the last request was received

    # ------------------------------------------------------------------------------- adapter

    def use(self, backend: Backend) -> None:
        """Uses this adapter from now on."""
        self._backend = backend

    def take_down(self, status: Status, reason: str) -> None:
        """Uses no adapter from now on: fails the frames that wait, and all that follow."""
        self._lose(status, reason)
        for account in self.accounts.values():
            self._drop(account, status, reason)
        for account in list(self.late):
            self._answer(account, self._latest_ns)

    def lock(self, holder: Holder | None) -> None:
        """Refuses the frames of all other clients; ``None``: everyone may transmit."""
        self._holder = holder

    def finish(self, transmits: Sequence[Transmit], now_ns: int) -> None:
        """Books transmits that have ended, and answers the requests that they complete."""
        touched: dict[str, Account] = {}
        for transmit in transmits:
            account, pending, index = transmit.request
            if transmit.failure is None:
                pending.accepted += 1
                pending.timestamp_ns = transmit.timestamp_ns
            else:
                pending.fail(index, self._status_of(transmit, now_ns), transmit.failure)
            pending.remaining -= 1
            account.outstanding -= 1
            touched[account.client_id] = account
        for account in touched.values():
            if account.may_wait(now_ns):
                self.late[account] = None
            else:
                self._answer(account, now_ns)

    def answer_ns(self) -> int | None:
        """When :meth:`answer_late` is to be called."""
        return min((account.answer_ns for account in self.late), default=None)

    def answer_late(self, now_ns: int) -> None:
        """Gives the answers that have waited long enough for others."""
        for account in [account for account in self.late if account.answer_ns <= now_ns]:
            self._answer(account, now_ns)

    def _lose(self, status: Status, reason: str) -> None:
        self._backend = None
        self._down = (status, reason)

    def _status_of(self, transmit: Transmit, now_ns: int) -> Status:
        if transmit.unknown:
            return Status.UNKNOWN
        if self._backend is None:
            return self._down[0]
        if self._backend.condition.off:
            return Status.BUS_OFF
        return Status.EXPIRED if 0 < transmit.expires_ns <= now_ns else Status.REFUSED

    # ------------------------------------------------------------------------------ requests

    def accept(self, identity: bytes, request: Request, now_ns: int) -> None:
        """Queues the frames of a request that was received at ``now_ns``, or refuses it."""
        self._latest_ns = now_ns
        account = self._account(identity, request)
        count = len(request.frames)
        account.token = request.token
        if account.outstanding + count > CREDIT:
            # At once, out of order: queueing frames sent without credit would have no bound.
            reason = f"more than {CREDIT} frames unanswered"
            failed = [*range(count)]
            self._reply(
                identity, encode_reply(request.token, Status.QUEUE_FULL, 0, 0, reason, failed)
            )
            return
        verdict = request.refusal
        forbidden = None if verdict is None else verdict.forbidden
        unhurried = bool(request.flags & UNHURRIED)
        pending = Pending(request.token, count, forbidden, unhurried=unhurried)
        account.unanswered.append(pending)
        account.outstanding += count
        refusal = self._refusal(request)
        if refusal is not None:
            account.fail(pending, range(count), *refusal)
            self._answer(account, now_ns)
            return
        client_id, expires_ns = account.client_id, request.expires_ns
        origins = request.origins or itertools.repeat(client_id)
        at_ns = max(now_ns, request.due_ns)
        transmits = [
            Transmit(frame, client_id, (account, pending, index), at_ns, expires_ns, origin)
            for index, (frame, origin) in enumerate(zip(request.frames, origins, strict=False))
        ]
        if account.scheduled and account.scheduled[0][0] <= now_ns:  # they were due before
            self._release(account, now_ns)
        if at_ns > now_ns:
            bisect.insort(account.scheduled, (at_ns, transmits), key=_due_ns)
            self.scheduled[account] = None
        else:
            account.waiting.extend(transmits)
            self.queued += count

    def _account(self, identity: bytes, request: Request) -> Account:
        client_id = request.client_id
        account = self.accounts.get(client_id)
        if account is not None and account.identity == identity:
            return account
        if account is not None:
            # On a new connection. What was queued on the old one is stale, and never sent.
            self._drop(account, Status.STALE, _LOST)
        elif len(self.accounts) >= _MAX_ACCOUNTS:
            # Peers that transmit without subscribing are not reported when they leave.
            self.accounts = {k: v for k, v in self.accounts.items() if v.unanswered}
        if request.token > 1:
            # It has sent before, on a connection that is gone: those requests need an answer.
            lost = encode_reply(request.token - 1, Status.STALE, 0, 0, _LOST)
            self._reply(identity, lost)
        account = self.accounts[client_id] = Account(client_id, identity)
        return account

    def _refusal(self, request: Request) -> tuple[Status, str] | None:
        """Why nothing of the request can be sent, if so."""
        if request.refusal is not None:
            return Status.NOT_PERMITTED, request.refusal.reason
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

    def _answer(self, account: Account, now_ns: int) -> None:
        """Replies to the requests at the head that are complete; one reply for a run of OK ones."""
        self.late.pop(account, None)
        done: Pending | None = None
        while account.unanswered and account.unanswered[0].remaining == 0:
            account.answered_ns = now_ns
            pending = account.unanswered.popleft()
            if pending.status is not Status.OK:
                if done is not None:  # a reply that is not OK does not cover those before it
                    self._reply_to(account, done)
                self._reply_to(account, pending)
                done = None
            else:
                done = pending
        if done is not None:
            self._reply_to(account, done)

    def _reply_to(self, account: Account, pending: Pending) -> None:
        self._reply(
            account.identity,
            encode_reply(
                pending.token,
                pending.status,
                pending.accepted,
                pending.timestamp_ns,
                pending.reason,
                pending.failed,
                pending.forbidden,
            ),
        )

    # ------------------------------------------------------------------------------ hand-over

    def due_ns(self) -> int | None:
        """When the next scheduled frame is due, if there is one."""
        if not self.scheduled:
            return None
        return min(account.scheduled[0][0] for account in self.scheduled)

    def hand_over(self, now_ns: int) -> bool:
        """Hands the adapter as many of the due frames as it has room for. Returns whether there are
        some that a client has sent itself, and none that wait: it may expect an answer.

        :raises AdapterGoneError: the adapter is lost, and is not used any more.
        """
        now_ns = max(now_ns, self._latest_ns)
        if self.scheduled:
            for account in list(self.scheduled):
                self._release(account, now_ns)
        backend = self._backend
        if backend is None or not self.queued:
            return False
        is_own = False
        waiting = [account for account in self.accounts.values() if account.waiting]
        while waiting:
            turn = _TURN if len(waiting) > 1 else CREDIT
            for account in list(waiting):
                room = min(backend.room(account.client_id), turn)
                if not room:
                    waiting.remove(account)
                    continue
                # A client that got room goes to the end of the line, also for the next call.
                self.accounts[account.client_id] = self.accounts.pop(account.client_id)
                is_own |= self._send(backend, account, room, now_ns)
                if not account.waiting:
                    waiting.remove(account)
        return is_own and not self.queued

    def _release(self, account: Account, now_ns: int | None) -> None:
        """Queues a client's scheduled frames that are due; ``None``: all of them."""
        scheduled = account.scheduled
        while scheduled and (now_ns is None or scheduled[0][0] <= now_ns):
            _, transmits = scheduled.pop(0)
            account.waiting.extend(transmits)
            self.queued += len(transmits)
        if not scheduled:
            self.scheduled.pop(account, None)

    def _send(self, backend: Backend, account: Account, count: int, now_ns: int) -> bool:
        """Hands over the next ``count`` frames of a client; whether the client has sent them
        itself, not the scheduler for it."""
        batch: list[Transmit] = []
        hindered = False
        while account.waiting and len(batch) < count:
            transmit = account.waiting.popleft()
            self.queued -= 1
            refusal = self._hindrance(transmit, now_ns)
            if refusal is None:
                batch.append(transmit)
            else:
                _, pending, index = transmit.request
                account.fail(pending, (index,), *refusal)
                hindered = True
        if hindered:
            self._answer(account, now_ns)
        try:
            self._hand(backend, batch)
        except AdapterGoneError as error:
            # The batch comes back from abandon(), when the keeper closes the backend.
            self._lose(Status.DEVICE_GONE, str(error))
            raise
        return bool(batch) and batch[-1].origin == batch[-1].sender

    def _hindrance(self, transmit: Transmit, now_ns: int) -> tuple[Status, str] | None:
        """Why a frame whose turn it is cannot be sent, if so."""
        if 0 < transmit.expires_ns <= now_ns:
            return Status.EXPIRED, "expired before the adapter had room"
        if self._holder is not None and transmit.origin != self._holder.client_id:
            return Status.LOCKED, locked_by(self._holder)
        return None

    # ------------------------------------------------------------------------------- dropping

    def discard(self, account: Account) -> int:
        """Drops the frames of a client that wait, as it has asked; returns how many there were."""
        return self._drop(account, Status.DISCARDED, "discarded by the client")

    def forget(self, client_ids: Iterable[str]) -> None:
        """Drops the frames of clients that have left."""
        for client_id in client_ids:
            account = self.accounts.pop(client_id, None)
            if account is not None:
                self._drop(account, Status.DISCARDED, "the client has left")

    def _drop(self, account: Account, status: Status, reason: str) -> int:
        self._release(account, None)
        dropped = len(account.waiting)
        while account.waiting:
            _, pending, index = account.waiting.popleft().request
            account.fail(pending, (index,), status, reason)
        self.queued -= dropped
        self._answer(account, self._latest_ns)
        return dropped
