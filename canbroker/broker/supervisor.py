"""The life of one actor process as the broker sees it: start, restart, give up, stop.

Everything that depends on time is in :meth:`ActorSlot.step`, which is passed the time.
"""

from __future__ import annotations

import enum
import logging
from abc import ABC, abstractmethod
from typing import Final

from canbroker.actors.kinds import Demand, Kind
from canbroker.actors.specs import ActorSpec, Alive, Ready
from canbroker.broker.child import Child, ReportError
from canbroker.system import clock
from canbroker.system.service import Exit
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter

#: A restart waits this long, twice as long each time it did not help.
_BACKOFF_FIRST_NS: Final = 50 * clock.MILLISECOND
_BACKOFF_MAX_NS: Final = 5 * clock.SECOND

#: So many starts in a row that did not last are given up.
_GIVE_UP_AFTER: Final = 10

#: A start has worked when the actor served this long: what ends it then is not what it does when
#: it starts, and who waits for it shall not wait for that.
_LASTED_NS: Final = 250 * clock.MILLISECOND

#: An actor says every second at least that it lives. One that does not is hung.
_HUNG_NS: Final = 6 * clock.SECOND

#: The broker looks at each actor every second. If it was later, it was stopped itself.
_ASLEEP_NS: Final = 3 * clock.SECOND

#: Opening an adapter may take its time, but not longer.
_OPEN_NS: Final = 20 * clock.SECOND

#: An actor that could not be started and that somebody wants is tried this often.
_RETRY_NS: Final = 5 * clock.SECOND

#: An actor that was told to leave, or has closed its pipe, is killed after this long.
_LEAVE_NS: Final = 3 * clock.SECOND

#: The end of a process follows that of its pipe at once, as a rule.
_REAP_NS: Final = 5 * clock.MILLISECOND

_logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    FAILED = "failed"


class ActorSlot(ABC):
    """One actor and its process. Used by the broker's one thread.

    Subclasses say what to start, and what there is to do while it runs.
    """

    def __init__(self, kind: Kind, name: str, what: str, *, configured: bool = False) -> None:
        """``what`` names the actor in logs and errors; ``configured``: the configuration file has
        it."""
        self.name = name
        self.configured = configured
        self.requested = False  # since the broker began
        self.phase = Phase.STOPPED
        self.reason = ""
        self.code = "initialization"  # groups a failed start, as an error of the protocol
        self.child: Child | None = None
        self.restarts = 0
        self._kind = kind
        self._what = what
        self._logged = ""
        self._failures = 0
        self._ran = False  # since it was begun
        self._replacing = False  # the process is to end, and another one to begin
        self._since_ns = clock.monotonic_ns()
        self._heard_ns = 0
        self._stepped_ns = self._since_ns
        self._retry_at = 0
        self._closed_ns: int | None = None  # since the child has closed its pipe
        self._killed = ""  # why we have killed it

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.phase.value}>"

    @property
    def wanted(self) -> bool:
        """Whether there is a reason for the actor to run that counts for its kind."""
        return bool(self._demand() & self._kind.runs_for)

    def _demand(self) -> Demand:
        """The reasons for the actor to run."""
        demand = Demand(0)
        if self.configured:
            demand |= Demand.CONFIGURED
        if self.requested:
            demand |= Demand.REQUESTED
        return demand

    @abstractmethod
    def _spec(self) -> ActorSpec:
        """What the process is told to be."""

    def _running(self, context: Context, waiter: Waiter) -> None:  # noqa: B027 - optional
        """The actor has just begun to serve."""

    def _ending(self, waiter: Waiter) -> None:  # noqa: B027 - optional
        """The actor's process has ended, or is about to."""

    def _entered(self, phase: Phase) -> None:  # noqa: B027 - optional
        """Another phase has begun."""

    def _attend(self, now_ns: int) -> None:  # noqa: B027 - optional
        """What there is to do every second, while the actor runs or could not be started."""

    # ------------------------------------------------------------------------------ lifecycle

    def begin(self, waiter: Waiter) -> None:
        """Starts the actor for someone who asks for it: what failed before is forgotten."""
        self.requested = True
        self._failures = 0
        self._ran = False
        self._start(waiter)

    def reported(self, context: Context, waiter: Waiter) -> None:
        """Takes what the child reports: that it is ready, lives, why not, or that it ends."""
        child = self.child
        if child is None:
            return
        reports = self._heard(child)
        if reports is None:  # it ends, or what it says next would not be understood, either
            waiter.remove(child)
            self._closed_ns = clock.monotonic_ns()
            self._reap(waiter)
        elif Ready() in reports and self.phase is Phase.STARTING:
            self._enter(Phase.RUNNING)
            self._running(context, waiter)

    def stop(self, reason: str, *, for_good: bool = False) -> None:
        """Tells the actor to leave; :meth:`step` kills it if it does not.

        ``for_good``: none will follow, which the actor tells its clients.
        """
        self.reason = reason
        if self.child is not None:
            self.child.release(reason if for_good else "")
            self._enter(Phase.STOPPING)
        else:
            self._enter(Phase.STOPPED)

    def replace(self) -> None:
        """Starts the actor anew in a process that is told what the slot says now.

        Its process is killed: one that ends in order tells its clients that the channel has ended.
        """
        if self.child is not None and self.phase is not Phase.STOPPING:
            self._replacing = True
            self.child.kill()
            self._enter(Phase.STARTING)

    def step(self, now_ns: int, waiter: Waiter) -> int:
        """Does what is due; returns the monotonic time at which to call again."""
        self._reap(waiter)
        if self.child is not None and self._closed_ns is not None:
            return now_ns + _REAP_NS
        since = now_ns - self._since_ns
        if now_ns - self._stepped_ns > _ASLEEP_NS:
            self._heard_ns = now_ns  # it was us who did not listen
        self._stepped_ns = now_ns
        match self.phase:
            case Phase.BACKING_OFF:
                if now_ns < self._retry_at:
                    return self._retry_at
                self._start(waiter)
            case Phase.FAILED:
                self._attend(now_ns)
                if since > _RETRY_NS and self.wanted:
                    self.begin(waiter)
            case Phase.STARTING if since > _OPEN_NS:
                self._kill("did not start in time")
            case Phase.STOPPING if since > _LEAVE_NS:
                self._kill("did not leave when told to")
            case Phase.RUNNING if now_ns - self._heard_ns > _HUNG_NS:
                self._kill("is hung")
            case Phase.RUNNING:
                self._attend(now_ns)
        return now_ns + clock.SECOND

    def _start(self, waiter: Waiter) -> None:
        """Starts the actor; :meth:`reported` tells how that went."""
        self.code = "initialization"
        try:
            self.child = Child(self.name, self._spec())
        except OSError as error:  # no process, no descriptor, no memory
            self.reason = f"cannot start the {self._what}: {error}"
            self._fail()
            return
        self._closed_ns = None
        self._killed = ""
        waiter.add(self.child)
        self._enter(Phase.STARTING)

    def _fail(self) -> None:
        """The actor cannot be started."""
        if self.reason != self._logged:  # a wanted one is tried for ever
            self._logged = self.reason
            _logger.error("%s cannot be started: %s", self._what, self.reason)
        self._enter(Phase.FAILED)

    def _heard(self, child: Child) -> list[Ready | Alive] | None:
        """What a child has reported; ``None``: it reports nothing more."""
        try:
            reports = child.reports()
        except ReportError as error:
            self._kill(str(error))
            return None
        for report in reports or ():
            self._heard_ns = clock.monotonic_ns()
            if isinstance(report, Ready) and report.error:
                self.reason, self.code = report.error, report.code
        return reports

    def _kill(self, why: str) -> None:
        if self.child is not None:
            _logger.error("%s: process %d %s, killing it", self._what, self.child.pid, why)
            self.reason = self._killed = f"the {self._what} {why}"
            self._since_ns = clock.monotonic_ns()
            self._heard_ns = self._since_ns
            self.child.kill()

    def _reap(self, waiter: Waiter) -> None:
        """Sees whether the child has ended, which may have left its pipe to a child of its own."""
        child = self.child
        if child is None:
            return
        code = child.poll()
        if code is not None:
            self._ended(child, code, waiter)
        elif self._closed_ns is not None and clock.monotonic_ns() - self._closed_ns > _LEAVE_NS:
            child.kill()

    def _ended(self, child: Child, code: int, waiter: Waiter) -> None:
        if self._closed_ns is None:
            self._heard(child)  # its last words
            waiter.remove(child)
        self._closed_ns = None
        self._ending(waiter)
        child.close()
        self.child = None
        replacing, self._replacing = self._replacing, False
        if replacing and self.phase is Phase.STARTING:
            self.restarts += 1
            self.begin(waiter)
        elif self.phase is Phase.STOPPING:
            self._enter(Phase.STOPPED)
        elif self.phase is Phase.STARTING and not self._ran:
            self.reason = self.reason or f"the {self._what} ended while it started ({code})"
            self._fail()
        else:
            self._back_off(child.pid, code)

    def _back_off(self, pid: int, code: int) -> None:
        now = clock.monotonic_ns()
        lasted = self.phase is Phase.RUNNING and now - self._since_ns > _LASTED_NS
        self._failures = 0 if lasted else self._failures + 1
        ended = self.reason if code == Exit.REFUSED else f"process {pid} ended with {code}"
        why = self._killed or ended
        self.reason = why
        if self._failures > _GIVE_UP_AFTER:
            _logger.critical("%s: %s; giving it up", self._what, why)
            self._enter(Phase.FAILED)
            return
        delay = min(_BACKOFF_FIRST_NS << max(0, self._failures - 1), _BACKOFF_MAX_NS)
        self.restarts += 1
        self._retry_at = now + delay
        _logger.error("%s: %s; restart in %d ms", self._what, why, delay // 1_000_000)
        self._enter(Phase.BACKING_OFF)

    def _enter(self, phase: Phase) -> None:
        if phase is Phase.RUNNING:
            self.reason = self._logged = ""
            self._ran = True
        self.phase = phase
        self._since_ns = clock.monotonic_ns()
        self._entered(phase)
