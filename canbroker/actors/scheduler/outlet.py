"""The scheduler's connection to one channel: frames out, what became of them, who is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple

from canbroker.actors.scheduler.bus_load import BusLoad
from canbroker.actors.scheduler.handdown import HandDown
from canbroker.actors.scheduler.lateness import bin_of
from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.delivery.state_feed import StateFeed
from canbroker.model.frame import EXTENDED
from canbroker.system import clock
from canbroker.transport.links import Link
from canbroker.transport.place import ChannelAddresses
from canbroker.transport.sockets import Context, Socket
from canbroker.transport.waiter import Waiter
from canbroker.wire import topics
from canbroker.wire.stream import StateEvent, decode_event
from canbroker.wire.tasks import SCHEDULER_ID, TaskStatus, stale_after_ns
from canbroker.wire.transmit import (
    CREDIT,
    MAX_FRAMES,
    Reply,
    Status,
    decode_reply,
    encode_request,
)

#: A channel says how it is every second at least. After this long it is taken for down.
_SILENCE_NS: Final = 3 * clock.SECOND

#: What these tell is that the channel is down. The frames' slots count as skipped.
_PAUSED: Final = frozenset(
    {
        Status.QUEUE_FULL,
        Status.BUS_OFF,
        Status.DEVICE_GONE,
        Status.EXPIRED,
        Status.SHUTTING_DOWN,
        Status.STALE,
    }
)

#: Descriptors of an outlet: three sockets, of each its signal and its connection.
DESCRIPTORS: Final = 6

_due: Final = itemgetter(1)  # of an item of what waits


class Mark(NamedTuple):
    """Numbers of the last requests."""

    frames: int
    repeats: int


def later(one: Mark, other: Mark) -> Mark:
    """The mark that is past when both are."""
    return Mark(max(one.frames, other.frames), max(one.repeats, other.repeats))


class _Unanswered:
    __slots__ = ("due_ns", "tasks", "token")

    def __init__(self, token: int, due_ns: int, tasks: Sequence[Task]) -> None:
        self.token = token
        self.due_ns = due_ns
        self.tasks = tasks


class Outlet:
    """One channel, as the scheduler sees it. One thread; nothing here blocks.

    ``present``: the clients that were seen on the channel since its epoch began.
    """

    def __init__(
        self,
        context: Context,
        channel: str,
        addresses: ChannelAddresses,
        schedule: Schedule,
        refused: Callable[[Task, str], None],
    ) -> None:
        """``schedule`` is that of all tasks. ``refused`` is told of each frame that its channel
        or driver did not take, and why.

        :raises CanInitializationError: no descriptors are left.
        """
        self.channel = channel
        self.tasks: set[Task] = set()
        self.present: set[str] = set()
        self.state: StateEvent | None = None
        self.epoch = 0
        self._newcomers: set[str] = set()
        self.token = 0  # of the last request
        self._refused = refused
        self.idle_ns = self._made_ns = clock.monotonic_ns()  # since then it has no tasks
        self._cleared = False  # nothing is there any more of a scheduler before us
        self._heard_ns = 0
        self._load = BusLoad()
        self._early: deque[tuple[int, list[Task]]] = deque()  # not to be sent before
        self._waiting: dict[Task, int] = {}  # due then, and there is no room
        self._unanswered: deque[_Unanswered] = deque()
        self._outstanding = 0  # frames
        with ExitStack() as on_error:
            self._link = Link(context, addresses.transmit)
            on_error.callback(self._link.close)
            self._handdown = HandDown(context, addresses.control, schedule, self.tasks)
            on_error.callback(self._handdown.close)
            self._feed = StateFeed(context, addresses.stream, topics.state_topic(channel))
            on_error.pop_all()

    def __repr__(self) -> str:
        return f"<Outlet {self.channel} tasks={len(self.tasks)} unanswered={self._outstanding}>"

    @property
    def sockets(self) -> tuple[Socket, ...]:
        """What becomes readable when there is something to :meth:`receive` that cannot wait:
        answers for frames can, unless :attr:`is_short`."""
        return self._feed.socket, self._handdown.socket

    def watch(self, waiter: Waiter) -> None:
        for socket in self.sockets:
            waiter.add(socket)

    def close(self, waiter: Waiter) -> None:
        for socket in self.sockets:
            waiter.remove(socket)
        self._link.close()
        self._feed.close()
        self._handdown.close()

    def resume(self, epoch: int, present: set[str]) -> None:
        """Goes on for a scheduler before us, which saw these clients on the channel last: those
        that are not there in the same epoch have left."""
        self.epoch, self.present = epoch, present

    # -------------------------------------------------------------------------------- sending

    def is_up(self, now_ns: int) -> bool:
        """Whether the channel can send, as far as is known."""
        state = self.state
        return (
            state is not None and state.state != "error" and now_ns - self._heard_ns < _SILENCE_NS
        )

    @property
    def is_short(self) -> bool:
        """Whether frames wait for answers to others."""
        return bool(self._waiting)

    @property
    def early_ns(self) -> int | None:
        """When :meth:`send_early` is to be called; ``None``: it is not."""
        return self._early[0][0] if self._early else None

    def send(self, due_ns: int, tasks: list[Task], now_ns: int) -> None:
        """Sends the frames of tasks that are due then, ahead of that.

        Not to a channel that may repeat them by itself, which begins at once.
        """
        if due_ns > now_ns and self._handdown.supported:
            self._early.append((due_ns, tasks))
        else:
            self._send(due_ns, tasks, now_ns)

    def send_early(self, now_ns: int) -> None:
        """Sends what :meth:`send` was called too early with."""
        while self._early and self._early[0][0] <= now_ns:
            due_ns, tasks = self._early.popleft()
            self._send(due_ns, tasks, now_ns)

    def _send(self, due_ns: int, tasks: Iterable[Task], now_ns: int) -> None:
        """Those without room wait for it. On a channel that is down, and for a task whose last
        frame waits still, that is a slot skipped."""
        if not self.is_up(now_ns):
            for task in tasks:
                task.skip()
            return
        waiting = self._waiting
        for task in tasks:
            if task in waiting:
                task.skip()
            else:
                waiting[task] = due_ns
        self._flush(now_ns)

    def _flush(self, now_ns: int) -> None:
        if not self._handdown.settled:
            return
        waiting = self._waiting
        while waiting and (room := min(CREDIT - self._outstanding, MAX_FRAMES)) > 0:
            due_ns, alike = next(groupby(waiting.items(), _due))
            taken = [task for task, _ in islice(alike, room)]
            for task in taken:
                del waiting[task]
            tasks = [
                task
                for task in taken
                if not (task.ended or task.parked or self._handdown.offer(task))
            ]
            if tasks:
                self._request(due_ns, tasks, now_ns)

    def _request(self, due_ns: int, tasks: list[Task], now_ns: int) -> None:
        frames = [task.take_frame() for task in tasks]
        period_ns = min(task.period_ns for task in tasks)
        expires_ns = max(due_ns, now_ns) + stale_after_ns(period_ns)
        origins = [task.origin for task in tasks]
        self.token += 1
        request = encode_request(
            SCHEDULER_ID, self.token, expires_ns, frames, self.epoch, origins, due_ns
        )
        if not self._link.send(request):
            for task in tasks:
                task.skipped += 1
            return
        for task in tasks:
            task.sent += 1  # until it is known to have failed
            task.request = self.token
        self._unanswered.append(_Unanswered(self.token, due_ns, tasks))
        self._outstanding += len(tasks)

    # ------------------------------------------------------------------------------ receiving

    def mark(self, tasks: Iterable[Task]) -> Mark:
        """What the channel was asked for these tasks up to now."""
        return Mark(max((task.request for task in tasks), default=0), self._handdown.token)

    def is_past(self, mark: Mark) -> bool:
        """Whether the channel has no frame any more of what it was asked up to there, by us or
        by a scheduler before us."""
        if not self._cleared:
            return False
        answered = self._unanswered[0].token - 1 if self._unanswered else self.token
        return answered >= mark.frames and self._handdown.answered >= mark.repeats

    def receive(self, now_ns: int) -> set[str]:
        """Takes what the channel has to say; returns the clients that have left it."""
        while (body := self._link.receive()) is not None:
            self._book(decode_reply(body))
        self._handdown.receive(now_ns)
        gone: set[str] = set()
        while (body := self._feed.receive()) is not None:
            event = decode_event(body)
            self._heard_ns = now_ns
            if not isinstance(event.payload, StateEvent):
                continue
            if event.epoch != self.epoch:  # who was there may not have come back yet
                self.epoch = event.epoch
                self.present = set()
                self._give_up(self.token)
                self._handdown.give_up(now_ns)
            self.state = event.payload
            if not self.is_up(now_ns):
                self._pause(now_ns)
            present = {client.client_id for client in event.payload.clients}
            gone |= self.present - present
            self._newcomers |= present - self.present
            self.present = present
            gone -= present
        if self.is_up(now_ns):
            self._handdown.step(now_ns)
        self._cleared = self._cleared or self._handdown.settled
        self._flush(now_ns)
        return gone

    def newcomers(self) -> set[str]:
        """The clients that have come to the channel since the last call, or its epoch began."""
        if not self._newcomers:
            return self._newcomers
        newcomers, self._newcomers = self._newcomers & self.present, set()
        return newcomers

    def _pause(self, now_ns: int) -> None:
        self._handdown.take_back(now_ns)
        for task in self._waiting:
            task.skip()
        self._waiting.clear()

    def check(self, now_ns: int) -> None:
        """Gives up on what a channel has not answered that says nothing any more."""
        if self.is_up(now_ns):
            self._handdown.step(now_ns)
            return
        if now_ns - self._made_ns > _SILENCE_NS:
            self._cleared = True
        self._give_up(self.token)
        self._handdown.give_up(now_ns)

    def _book(self, reply: Reply) -> None:
        """Accounts for an answer, as ``docs/protocol.md`` says what it speaks of."""
        if reply.status == Status.OK:
            while self._unanswered and self._unanswered[0].token <= reply.token:
                request = self._pop(0)
                if request.token == reply.token:
                    _note_lateness(request, reply)
        elif reply.status == Status.STALE:
            self._give_up(reply.token)
        else:
            for index, request in enumerate(self._unanswered):
                if request.token == reply.token:
                    self._fail(self._pop(index), reply)
                    return

    def _fail(self, request: _Unanswered, reply: Reply) -> None:
        for index in reply.failed:
            if index >= len(request.tasks):
                continue
            task = request.tasks[index]
            task.sent -= 1
            if reply.status in _PAUSED:
                task.skipped += 1
            else:
                task.failed += 1
                self._refused(task, reply.reason)

    def _give_up(self, token: int) -> None:
        """Nobody answers for these any more; whether they were sent is not known."""
        while self._unanswered and self._unanswered[0].token <= token:
            for task in self._pop(0).tasks:
                task.sent -= 1
                task.skipped += 1

    def _pop(self, index: int) -> _Unanswered:
        request = self._unanswered[index]
        del self._unanswered[index]
        self._outstanding -= len(request.tasks)
        return request

    # ---------------------------------------------------------------------------------- tasks

    @property
    def fd(self) -> bool:
        """Whether the channel takes CAN FD frames, as far as is known."""
        return self.state is None or self.state.fd

    def enroll(self, task: Task) -> None:
        """Takes a task into the account of the channel; call it again when it has changed."""
        self.tasks.add(task)
        self._load.add(task, self.state)

    def change(self, task: Task, now_ns: int) -> None:
        """A task sends other messages now, or at another period."""
        self.enroll(task)
        self._handdown.change(task, now_ns)

    def stop(self, task: Task) -> None:
        """A task has ended; :meth:`mark` is when nothing of it is on its way any more."""
        self.dismiss(task)
        self._handdown.stop(task)

    def dismiss(self, task: Task) -> None:
        """Takes a task out of the account."""
        self.tasks.discard(task)
        self._load.remove(task)

    def overload(self) -> str:
        """Says so if the tasks ask for more than the whole bus; else empty."""
        return self._load.warning(self.channel, self.state)

    def status(self, task: Task, now_ns: int) -> TaskStatus:
        """A task as ``canbroker status --tasks`` shows it."""
        frame, lateness = task.frames[0], task.lateness
        mode = "kernel" if task.parked else "scheduler" if self.is_up(now_ns) else "paused"
        return TaskStatus(
            client_id=task.origin,
            task=task.task,
            channel=task.channel,
            arbitration_id=frame.arbitration_id,
            extended=bool(frame.flags & EXTENDED),
            messages=len(task.frames),
            period_ns=task.period_ns,
            mode=mode,
            sent=task.sent,
            skipped=task.skipped,
            failed=task.failed,
            reason=task.reason,
            late_p50_ns=lateness.percentile(0.5),
            late_p99_ns=lateness.percentile(0.99),
            late_max_ns=lateness.max_ns if lateness.count else None,
        )


def _note_lateness(request: _Unanswered, reply: Reply) -> None:
    """How long after its due time the driver took the last frame of a request."""
    monotonic_ns = reply.timestamp_ns - clock.wall_ns() + clock.monotonic_ns()
    late_ns = max(0, monotonic_ns - request.due_ns)
    at = bin_of(late_ns)
    for task in request.tasks:
        task.lateness.add(at, late_ns)
