"""One channel, as the scheduler sees it: sends and accounts for frames, and knows the clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from canbroker.actors.scheduler.bus_load import BusLoad
from canbroker.actors.scheduler.offload import ControlRequests, Offload
from canbroker.actors.scheduler.schedule import Schedule, Task
from canbroker.actors.scheduler.unanswered import UnansweredRequests
from canbroker.model.frame import EXTENDED
from canbroker.system import clock
from canbroker.wire.stream import EventBody, StateEvent, decode_event
from canbroker.wire.tasks import SCHEDULER_ID, TaskStatus, stale_after_ns
from canbroker.wire.transmit import CREDIT, MAX_FRAMES, decode_reply, encode_request

#: A channel publishes its state at least every second. After this long it is considered down.
SILENCE_NS: Final = 3 * clock.SECOND

#: How often answers of the channel are polled while frames wait for them.
POLL_NS: Final = clock.MILLISECOND

_due: Final = itemgetter(1)  # of an item of the waiting tasks


class TransmitRequests(Protocol):
    """The channel's transmit socket. Nothing here blocks."""

    def send(self, request: bytes) -> bool:
        """Sends a request; ``False`` if the queue is full."""

    def receive(self) -> bytes | None:
        """The next reply, if one has arrived."""


class States(Protocol):
    """The channel's state events. Nothing here blocks."""

    def receive(self) -> bytes | None:
        """The body of the next event, if one has arrived."""


class Connections(Protocol):
    """The connections to a channel."""

    @property
    def transmit(self) -> TransmitRequests: ...

    @property
    def control(self) -> ControlRequests: ...

    @property
    def states(self) -> States: ...


class Watermark(NamedTuple):
    """Tokens of the last requests: for frames, and for repeating them."""

    frames: int
    repeats: int


def later(one: Watermark, other: Watermark) -> Watermark:
    """The watermark that is passed when both are."""
    return Watermark(max(one.frames, other.frames), max(one.repeats, other.repeats))


class ChannelProxy:
    """One channel, as the scheduler sees it. One thread; nothing here blocks or reads the clock.

    ``present``: the clients that were seen on the channel since its epoch began.
    """

    def __init__(
        self,
        channel: str,
        connections: Connections,
        schedule: Schedule,
        refused: Callable[[Task, str], None],
        now_ns: int,
    ) -> None:
        """
        :param schedule: of the tasks of all channels.
        :param refused: is called with each task a frame of which was refused, and the reason.
        :param now_ns: monotonic time, here and below.
        """
        self.channel = channel
        self.tasks: set[Task] = set()
        self.present: set[str] = set()
        self.state: StateEvent | None = None
        self.epoch = 0
        self.idle_ns = self._made_ns = now_ns  # it has had no tasks since idle_ns
        self._newcomers: set[str] = set()
        self._cleared = False  # whether no frame of a previous scheduler is under way there
        self._heard_ns = 0
        self._load = BusLoad()
        self._early: deque[tuple[int, list[Task]]] = deque()  # to be sent when they are due
        self._waiting: dict[Task, int] = {}  # due times of tasks that wait for credit
        self._unanswered = UnansweredRequests(refused)
        self._transmit = connections.transmit
        self._states = connections.states
        self._offload = Offload(connections.control, schedule, self.tasks)

    def __repr__(self) -> str:
        frames = self._unanswered.frames
        return f"<ChannelProxy {self.channel} tasks={len(self.tasks)} unanswered={frames}>"

    def resume(self, epoch: int, present: set[str]) -> None:
        """Continues for a previous scheduler, which last saw these clients on the channel: those
        that are absent in the same epoch have left."""
        self.epoch, self.present = epoch, present

    # -------------------------------------------------------------------------------- sending

    def is_up(self, now_ns: int) -> bool:
        """Whether the channel can send, as far as is known."""
        state = self.state
        return state is not None and state.state != "error" and now_ns - self._heard_ns < SILENCE_NS

    def send(self, due_ns: int, tasks: list[Task], now_ns: int) -> None:
        """Sends the frames of tasks that are due at ``due_ns``, ahead of that time.

        A channel that can repeat frames itself gets its tasks when they are due, because it starts
        repeating at once.
        """
        if due_ns > now_ns and self._offload.supported:
            self._early.append((due_ns, tasks))
        else:
            self._send(due_ns, tasks, now_ns)

    def step(self, now_ns: int) -> int | None:
        """Sends the frames that :meth:`send` was given too early and that are due now.

        Returns when to call it or :meth:`receive` again, even if nothing arrives; ``None``: not
        needed.
        """
        while self._early and self._early[0][0] <= now_ns:
            due_ns, tasks = self._early.popleft()
            self._send(due_ns, tasks, now_ns)
        due = [self._early[0][0]] if self._early else []
        if self._waiting:  # for answers, which do not wake the scheduler
            due.append(now_ns + POLL_NS)
        return min(due, default=None)

    def _send(self, due_ns: int, tasks: Iterable[Task], now_ns: int) -> None:
        """Sends frames as far as there is credit; the other tasks wait for it.

        A task skips its slot if the channel is down, or if its last frame is still waiting.
        """
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
        if not self._offload.in_sync:
            return
        waiting = self._waiting
        while waiting and (credit := min(CREDIT - self._unanswered.frames, MAX_FRAMES)) > 0:
            due_ns, alike = next(groupby(waiting.items(), _due))
            chosen = [task for task, _ in islice(alike, credit)]
            for task in chosen:
                del waiting[task]
            tasks = [
                task
                for task in chosen
                if not (task.ended or task.parked or self._offload.offer(task))
            ]
            if tasks:
                self._request(due_ns, tasks, now_ns)

    def _request(self, due_ns: int, tasks: list[Task], now_ns: int) -> None:
        frames = [task.next_frame() for task in tasks]
        period_ns = min(task.period_ns for task in tasks)
        expires_ns = max(due_ns, now_ns) + stale_after_ns(period_ns)
        origins = [task.origin for task in tasks]
        token = self._unanswered.token + 1
        request = encode_request(
            SCHEDULER_ID, token, expires_ns, frames, self.epoch, origins, due_ns
        )
        if self._transmit.send(request):
            self._unanswered.add(token, due_ns, tasks)
            return
        for task in tasks:
            task.skipped += 1

    # ------------------------------------------------------------------------------ receiving

    def watermark(self, tasks: Iterable[Task]) -> Watermark:
        """The requests for these tasks up to now."""
        return Watermark(max((task.request for task in tasks), default=0), self._offload.token)

    def is_past(self, watermark: Watermark) -> bool:
        """Whether no frame of the requests up to ``watermark`` is under way any more, nor one of a
        previous scheduler."""
        return (
            self._cleared
            and self._unanswered.answered >= watermark.frames
            and self._offload.answered >= watermark.repeats
        )

    def receive(self, now_ns: int) -> set[str]:
        """Handles what has arrived from the channel; returns the clients that have left it."""
        while (body := self._transmit.receive()) is not None:
            self._unanswered.handle(decode_reply(body))
        self._offload.receive(now_ns)
        gone: set[str] = set()
        while (body := self._states.receive()) is not None:
            self._follow(decode_event(body), gone, now_ns)
        if self.is_up(now_ns):
            self._offload.step(now_ns)
        self._cleared = self._cleared or self._offload.in_sync
        self._flush(now_ns)
        return gone

    def _follow(self, event: EventBody, gone: set[str], now_ns: int) -> None:
        """Handles a state event; adds to ``gone`` the clients that have left."""
        self._heard_ns = now_ns
        if not isinstance(event.payload, StateEvent):
            return
        if event.epoch != self.epoch:  # the clients may not have come back yet
            self.epoch = event.epoch
            self.present = set()
            self._give_up(now_ns)
        self.state = event.payload
        if not self.is_up(now_ns):
            self._pause(now_ns)
        present = {client.client_id for client in event.payload.clients}
        gone |= self.present - present
        gone -= present
        self._newcomers |= present - self.present
        self.present = present

    def newcomers(self) -> set[str]:
        """The clients that have come to the channel since the last call, or its epoch began."""
        if not self._newcomers:
            return self._newcomers
        newcomers, self._newcomers = self._newcomers & self.present, set()
        return newcomers

    def check(self, now_ns: int) -> None:
        """Gives up on requests to a channel that has been silent for too long."""
        if self.is_up(now_ns):
            self._offload.step(now_ns)
            return
        if now_ns - self._made_ns > SILENCE_NS:
            self._cleared = True
        self._give_up(now_ns)

    def _give_up(self, now_ns: int) -> None:
        self._unanswered.give_up(self._unanswered.token)
        self._offload.give_up(now_ns)

    def _pause(self, now_ns: int) -> None:
        self._offload.reclaim(now_ns)
        for task in self._waiting:
            task.skip()
        self._waiting.clear()

    # ---------------------------------------------------------------------------------- tasks

    @property
    def fd(self) -> bool:
        """Whether the channel accepts CAN FD frames, as far as is known."""
        return self.state is None or self.state.fd

    def enroll(self, task: Task) -> None:
        """Adds a task to the channel's account; call it again when the task has changed."""
        self.tasks.add(task)
        self._load.add(task, self.state)

    def change(self, task: Task, now_ns: int) -> None:
        """A task has other messages or another period from now on."""
        self.enroll(task)
        self._offload.change(task, now_ns)

    def stop(self, task: Task) -> None:
        """A task has ended; its last frames are through when its :meth:`watermark` is passed."""
        self.dismiss(task)
        self._offload.stop(task)

    def dismiss(self, task: Task) -> None:
        """Removes a task from the channel's account."""
        self.tasks.discard(task)
        self._load.remove(task)

    def overload(self) -> str:
        """A warning if the tasks need more than the whole bus; else empty."""
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
