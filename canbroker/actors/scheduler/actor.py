"""The scheduler actor: one process, one thread, one timer loop for all periodic tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.scheduler.channel_proxy import POLL_NS, ChannelProxy
from canbroker.actors.scheduler.connections import DESCRIPTORS, ChannelConnections
from canbroker.actors.scheduler.deferred import DeferredReplies, DeferredReply
from canbroker.actors.scheduler.journal import Journal
from canbroker.actors.scheduler.owners import Owner, Owners
from canbroker.actors.scheduler.pending import PendingRequests
from canbroker.actors.scheduler.schedule import Task
from canbroker.actors.scheduler.task_book import TaskBook, has_room
from canbroker.actors.specs import SchedulerSpec
from canbroker.errors import CanError, CanInitializationError
from canbroker.system import clock
from canbroker.system.descriptors import share
from canbroker.system.throttle import Throttle
from canbroker.transport.replier import Caller, Replier
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.tasks import (
    LISTED,
    MAX_TASKS,
    SCHEDULER_METHODS,
    AddTask,
    ListTasks,
    ModifyTask,
    StopTasks,
    TaskAdded,
    TaskList,
    TaskTrouble,
)

#: Frames are sent to their channels this long before they are due, or up to twice as long; the
#: channel keeps them until then. So a scheduler that is late by less does no harm, and it need not
#: wake up for every due time. Sent frames cannot be taken back: stopping and changing a task waits.
_LEAD_NS: Final = 4 * clock.MILLISECOND

#: Requests that are handled before the tasks have their turn again.
_SERVE: Final = 16

#: How often a channel's state is checked while a request waits for it.
_LOOK_NS: Final = 50 * clock.MILLISECOND

#: How often the owner of a failing task is told, at most.
_TELL_NS: Final = clock.SECOND

#: How long a connection to a channel without tasks is kept.
_KEEP_NS: Final = 5 * clock.SECOND

_logger = logging.getLogger(__name__)


class SchedulerActor:
    """Once made, its socket listens, and the tasks of a previous scheduler run again.

    :raises CanInitializationError: cannot bind the socket, or cannot open the journal.
    """

    def __init__(self, spec: SchedulerSpec) -> None:
        self._runtime = Runtime.at(spec.address)
        self._proxies: dict[str, ChannelProxy] = {}
        self._connections: dict[str, ChannelConnections] = {}
        self._pending = PendingRequests()
        self._deferred = DeferredReplies()
        self._look_at = 0
        self._beat_at = 0
        self._refused = Throttle(_logger)
        self._waiter = Waiter()
        self._journal = Journal(self._runtime.journal_path)
        self._context = Context()
        try:
            self._control = Replier(
                self._context,
                self._runtime.place.scheduler,
                SCHEDULER_METHODS,
                {
                    "task_add": self._add,
                    "task_modify": self._modify,
                    "task_stop": self._stop,
                    "task_list": self._list,
                },
                self._refused,
            )
        except BaseException:
            self._context.close()
            self._journal.close()
            raise
        self._control.watch(self._waiter)
        self._owners = Owners(self._waiter, self._journal, self._control.is_connected)
        self._book = TaskBook(self._journal, self._owners)
        self._restore()

    def __repr__(self) -> str:
        return f"<SchedulerActor tasks={len(self._book)} channels={len(self._proxies)}>"

    def run(self, lifelines: Lifelines, beat: Beat) -> None:
        """Serves until one of ``lifelines`` becomes readable; calls ``beat`` every second."""
        for lifeline in lifelines.descriptors:
            self._waiter.add(lifeline)
        try:
            while True:
                now = clock.monotonic_ns()
                if now >= self._beat_at:
                    beat()
                    self._beat_at = now + clock.SECOND
                ready = self._waiter.wait(max(0, self.step(now) - clock.monotonic_ns()))
                if not ready.isdisjoint(lifelines.descriptors):
                    return
                self._serve(ready, clock.monotonic_ns())
        finally:
            self._end()

    # ------------------------------------------------------------------------------- the loop

    def step(self, now_ns: int) -> int:
        """Does the work that is due at ``now_ns``; returns when to call it again (monotonic)."""
        schedule = self._book.schedule
        if schedule.due_ns is not None and schedule.due_ns <= now_ns + _LEAD_NS:
            for due_ns, tasks in schedule.step(now_ns, 2 * _LEAD_NS):
                self._send(due_ns, tasks, now_ns)
        steps = [proxy.step(now_ns) for proxy in self._proxies.values()]
        if now_ns >= self._look_at:
            self._look_around(now_ns)
        due = [self._beat_at, self._look_at, *(at for at in steps if at is not None)]
        if self._deferred:
            due.append(now_ns + POLL_NS)
        if schedule.due_ns is not None:
            due.append(schedule.due_ns - _LEAD_NS)
        return min(due)

    def _send(self, due_ns: int, due: list[Task], now: int) -> None:
        by_channel: dict[str, list[Task]] = {}
        for task in due:
            tasks = by_channel.get(task.channel)
            if tasks is None:
                by_channel[task.channel] = [task]
            else:
                tasks.append(task)
        for channel, tasks in by_channel.items():
            self._proxies[channel].send(due_ns, tasks, now)

    def _serve(self, ready: set[object], now: int) -> None:
        for proxy in self._proxies.values():
            for client_id in proxy.receive(now):
                self._gone(client_id, proxy)
            self._owners.see(proxy.channel, proxy.epoch, proxy.newcomers())
        for owner in self._owners.ended(ready, now):
            self._forget_all(list(owner.tasks.values()))
        if self._pending:
            self._serve_pending(now)
        for reply in self._deferred.remove_due():
            self._control.reply(reply.caller, reply.result)
        if self._control.socket in ready:
            self._control.serve(self._waiter, _SERVE)
        self._control.listening.attend(ready)

    def _look_around(self, now: int) -> None:
        """Finds what no event tells: owners that are gone, channels that fell silent, and tasks
        that have sent their last frame."""
        self._look_at = now + clock.SECOND
        if not self._journal.is_in_place():
            self._renew_journal(now)
        for task in self._book.tasks():
            if task.ended:
                self._forget(task)
        for channel, proxy in list(self._proxies.items()):
            proxy.check(now)
            if proxy.tasks:
                proxy.idle_ns = now
            elif now - proxy.idle_ns > _KEEP_NS and channel not in self._pending.channels():
                del self._proxies[channel]
                self._connections.pop(channel).close()
        for owner in self._owners:
            self._look_for(owner, now)
        if self._pending:
            self._look_at = now + _LOOK_NS
            self._serve_pending(now)

    def _renew_journal(self, now: int) -> None:
        try:
            fresh = Journal(self._runtime.journal_path)
        except CanInitializationError as error:  # the directory is gone, but may come back
            self._refused.note("the journal of tasks was removed", str(error))
            return
        self._journal.close()
        self._journal = fresh
        self._book.use(fresh, now)
        self._owners.use(fresh)

    def _look_for(self, owner: Owner, now: int) -> None:
        for channel in {task.channel for task in owner.tasks.values()}:
            proxy = self._proxies[channel]
            if proxy.state is None or owner.client_id in proxy.present:
                continue
            if self._owners.is_gone(owner, now):
                self._gone(owner.client_id, proxy)
        if not owner.tasks and owner.client_id not in self._pending.clients():
            self._owners.remove(owner)

    def _end(self) -> None:
        for connections in self._connections.values():
            connections.close()
        self._owners.close()
        self._control.close()
        self._context.close()
        self._journal.close()

    # -------------------------------------------------------------------------------- methods

    def _add(self, caller: Caller, request: AddTask) -> msgspec.Struct | None:
        now = clock.monotonic_ns()
        refused = self._no_room(request)
        if refused:
            self._refused.note("task refused", refused)
            return control.ErrorResult("limit", refused)
        owner = self._owners.of(request.client_id, request.pid, now)
        owner.identity = caller.identity
        if self._runs(request):
            return TaskAdded()
        try:
            proxy = self._existing_proxy(request.channel, now)
        except CanError as error:
            return control.ErrorResult("invalid", str(error))
        if proxy is None or proxy.state is None:
            self._pending.add(caller, request, now)
            return None
        return self._start(proxy, request, now)

    def _no_room(self, request: AddTask) -> str:
        """Why another task is refused; empty if there is room for it."""
        owner = self._owners.find(request.client_id)
        if owner is None and len(self._owners) >= share():
            return f"{len(self._owners)} clients have tasks, which is the most"
        if owner is not None and request.task not in owner.tasks and not has_room(owner):
            return f"a client may have {MAX_TASKS:,} tasks"
        if self._pending.full:
            return f"{len(self._pending)} requests wait for channels already"
        if len(self._proxies) * DESCRIPTORS >= share() and request.channel not in self._proxies:
            return f"there are tasks on {len(self._proxies)} channels, which is the most"
        return ""

    def _serve_pending(self, now: int) -> None:
        for entry in self._pending:
            request = entry.request
            try:
                proxy = self._existing_proxy(request.channel, now)
            except CanError as error:  # no descriptors are left
                result: msgspec.Struct = control.ErrorResult("down", str(error))
            else:
                if proxy is not None and proxy.state is not None:
                    runs = self._runs(request)
                    result = TaskAdded() if runs else self._start(proxy, request, now)
                elif now < entry.until_ns:
                    continue
                else:
                    reason = f"channel {request.channel!r} does not answer"
                    result = control.ErrorResult("down", reason)
            self._pending.remove(entry)
            self._control.reply(entry.caller, result)

    def _runs(self, request: AddTask) -> bool:
        task = self._book.find(request.client_id, request.task)
        if task is not None and task.ended:
            self._forget(task)
            return False
        return task is not None

    def _start(self, proxy: ChannelProxy, request: AddTask, now: int) -> msgspec.Struct:
        if 0 < request.expires_ns < now:
            return control.ErrorResult("expired", "the client has stopped waiting for the task")
        try:
            task = self._book.add(request, now, fd=proxy.fd)
        except ValueError as error:
            return control.ErrorResult("invalid", str(error))
        proxy.enroll(task)
        if request.client_id in proxy.present:
            self._owners.see(proxy.channel, proxy.epoch, [request.client_id])
        return TaskAdded(warning=proxy.overload())

    def _modify(self, caller: Caller, request: ModifyTask) -> msgspec.Struct | None:
        owner = self._owners.find(request.client_id)
        task = None if owner is None else owner.tasks.get(request.task)
        if owner is None or task is None or task.ended:
            return control.ErrorResult("unknown", f"no task {request.task} runs")
        owner.identity = caller.identity
        proxy = self._proxies[task.channel]
        now = clock.monotonic_ns()
        proxy.dismiss(task)
        try:
            self._book.modify(task, request, now, fd=proxy.fd)
        except ValueError as error:
            proxy.enroll(task)
            return control.ErrorResult("invalid", str(error))
        proxy.change(task, now)
        result = TaskAdded(warning=proxy.overload() if request.period_ns else "")
        return self._reply_later(DeferredReply(caller, {proxy: proxy.watermark([task])}, result))

    def _stop(self, caller: Caller, request: StopTasks) -> msgspec.Struct | None:
        for pending in self._pending.give_up(request):
            error = control.ErrorResult("unknown", "the task was stopped before it began")
            self._control.reply(pending.caller, error)
        owner = self._owners.find(request.client_id)
        tasks = [] if owner is None else list(owner.tasks.values())
        if request.task is not None:
            tasks = [task for task in tasks if task.task == request.task]
        proxies = {self._proxies[task.channel] for task in tasks}
        self._forget_all(tasks)
        watermarks = {
            proxy: proxy.watermark(task for task in tasks if task.channel == proxy.channel)
            for proxy in proxies
        }
        watermarks = self._deferred.merged(caller.identity, watermarks)
        return self._reply_later(DeferredReply(caller, watermarks, control.Nothing()))

    def _reply_later(self, reply: DeferredReply) -> msgspec.Struct | None:
        """The result, if it need not be deferred."""
        if reply.is_due:
            return reply.result
        self._deferred.add(reply)
        return None

    def _list(self, _: Caller, request: ListTasks) -> TaskList:
        now = clock.monotonic_ns()
        tasks = [
            task
            for task in self._book.tasks()
            if not task.ended and control.is_visible(task.channel, request)
        ]
        listed = tasks[request.start : request.start + LISTED]
        return TaskList(
            total=len(tasks), tasks=[self._proxies[t.channel].status(t, now) for t in listed]
        )

    # ---------------------------------------------------------------------------------- tasks

    def _existing_proxy(self, channel: str, now: int) -> ChannelProxy | None:
        """The proxy of a channel; ``None`` while the channel has no socket: it may not exist, and
        a proxy costs descriptors.

        :raises CanInitializationError: the address is not possible, or no descriptors are left.
        """
        exists = channel in self._proxies or self._runtime.place.has_channel(channel)
        return self._proxy(channel, now) if exists else None

    def _proxy(self, channel: str, now: int) -> ChannelProxy:
        """:raises CanInitializationError: as :meth:`_existing_proxy`."""
        proxy = self._proxies.get(channel)
        if proxy is None:
            addresses = self._runtime.place.channel(channel)
            connections = ChannelConnections(self._context, self._waiter, channel, addresses)
            proxy = ChannelProxy(channel, connections, self._book.schedule, self._trouble, now)
            self._connections[channel], self._proxies[channel] = connections, proxy
        return proxy

    def _forget(self, task: Task) -> None:
        self._proxies[task.channel].stop(task)
        self._book.forget(task)

    def _forget_all(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self._forget(task)

    def _gone(self, client_id: str, proxy: ChannelProxy) -> None:
        """A client has left a channel: its tasks there end."""
        owner = self._owners.find(client_id)
        tasks = [] if owner is None else list(owner.tasks.values())
        self._forget_all(task for task in tasks if task.channel == proxy.channel)

    def _restore(self) -> None:
        """Continues the tasks of a scheduler that was killed."""
        now = clock.monotonic_ns()
        tasks = self._book.restore(now)
        for task in tasks:
            self._proxy(task.channel, now).enroll(task)
        for channel, proxy in self._proxies.items():
            proxy.resume(*self._owners.last_seen(channel))
        if tasks:
            _logger.warning("continues %d tasks of the previous scheduler", len(tasks))

    def _trouble(self, task: Task, reason: str) -> None:
        """Tells the owner of a task that a frame was refused."""
        now = clock.monotonic_ns()
        is_new, task.reason = reason != task.reason, reason
        owner = self._owners.find(task.origin)
        if owner is not None and (is_new or now - task.told_ns > _TELL_NS):
            task.told_ns = now
            trouble = TaskTrouble(task=task.task, failed=task.failed, reason=reason)
            self._control.reply(Caller(owner.identity, 0), trouble)
