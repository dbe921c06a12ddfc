"""The life of one actor process as the broker sees it: start, restart, give up, stop.

Nothing here reads a clock: every method that depends on the time is passed it, as ``now_ns`` of the
monotonic clock.
"""

from __future__ import annotations

import enum
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypedDict

from canbroker.actors.kinds import Demand, Kind
from canbroker.actors.specs import ActorSpec, Alive, Ready
from canbroker.broker.child import Child, start
from canbroker.broker.child_reports import ReportError
from canbroker.system import clock
from canbroker.system.service import Exit
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter

#: The first restart waits this long; each one that did not help doubles the delay.
BACKOFF_FIRST_NS: Final = 50 * clock.MILLISECOND
BACKOFF_MAX_NS: Final = 5 * clock.SECOND

#: After this many restarts in a row that did not last, the actor is given up.
GIVE_UP_AFTER: Final = 10

#: A start has worked when the actor has served this long. Whatever ends it later was not caused by
#: the start, and the next restart need not wait longer.
LASTED_NS: Final = 250 * clock.MILLISECOND

#: An actor reports every second at least that it lives. One that does not is hung.
HUNG_NS: Final = 6 * clock.SECOND

#: The broker looks at each actor every second. If it is later than this, it was stopped itself.
ASLEEP_NS: Final = 3 * clock.SECOND

#: Opening an adapter may take this long, but not longer.
OPEN_NS: Final = 20 * clock.SECOND

#: An actor that could not be started, but is wanted, is tried again after this time.
RETRY_NS: Final = 5 * clock.SECOND

#: An actor that was told to leave, or has closed its pipe, is killed after this time, as a rule.
LEAVE_NS: Final = 3 * clock.SECOND

#: As a rule a process ends immediately after its pipe.
_REAP_NS: Final = 5 * clock.MILLISECOND

_logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    FAILED = "failed"


class Condition(TypedDict):
    """How an actor is, as every status has it."""

    phase: str
    reason: str
    pid: int | None
    restarts: int


class ActorSlot(ABC):
    """One actor and its process. Used by the broker's one thread.

    Subclasses say what to start, and what there is to do while it runs.
    """

    _leave_ns = LEAVE_NS  # an actor that was told to leave is killed after this time

    def __init__(
        self,
        kind: Kind,
        name: str,
        what: str,
        *,
        configured: bool = False,
        launch: Callable[[str, ActorSpec], Child] = start,
    ) -> None:
        """
        :param what: names the actor in logs and errors.
        :param configured: whether the configuration file has it.
        :param launch: starts a process for the actor of that name; raises :class:`OSError`.
        """
        self.name = name
        self.configured = configured
        self.requested = False  # since the broker began
        self.phase = Phase.STOPPED
        self.reason = ""
        self.code = "initialization"  # groups a failed start, as an error of the protocol
        self.child: Child | None = None
        self.restarts = 0
        self.report: dict[str, Any] = {}  # what the actor has said of itself last
        self._kind = kind
        self._what = what
        self._launch = launch
        self._logged = ""
        self._failures = 0
        self._ran = False  # since it was begun
        self._replacing = False  # the process is to end, and another one to begin
        self._since_ns = 0  # the phase began
        self._heard_ns = 0
        self._stepped_ns = 0
        self._retry_at = 0
        self._closed_ns: int | None = None  # the child has closed its pipe
        self._killed = ""  # why we have killed it

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.phase.value}>"

    def condition(self) -> Condition:
        return Condition(
            phase=self.phase.value,
            reason=self.reason,
            pid=self.child.pid if self.child else None,
            restarts=self.restarts,
        )

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

    def _running(self, now_ns: int, context: Context, waiter: Waiter) -> None:  # noqa: B027
        """The actor has just begun to serve. Optional."""

    def _ending(self, waiter: Waiter) -> None:  # noqa: B027
        """The actor's process has ended. Optional."""

    def _entered(self, phase: Phase) -> None:  # noqa: B027
        """Another phase has begun. Optional."""

    def _attend(self, now_ns: int) -> None:  # noqa: B027
        """Called every second while the actor runs or could not be started. Optional."""

    # ------------------------------------------------------------------------------ lifecycle

    def begin(self, now_ns: int, waiter: Waiter) -> None:
        """Starts the actor because somebody asks for it: earlier failures are forgotten."""
        self.requested = True
        self._failures = 0
        self._ran = False
        self._start(now_ns, waiter)

    def reported(self, now_ns: int, context: Context, waiter: Waiter) -> None:
        """Handles the child's next reports: that it is ready, or why not, that it lives or ends."""
        child = self.child
        if child is None:
            return
        reports = self._hear(child, now_ns)
        if reports is None:  # it ends, or what it reports from now on would make no sense either
            waiter.remove(child)
            self._closed_ns = now_ns
            self._reap(now_ns, waiter)
        elif Ready() in reports and self.phase is Phase.STARTING:
            self._enter(Phase.RUNNING, now_ns)
            self._running(now_ns, context, waiter)

    def stop(self, now_ns: int, reason: str, *, for_good: bool = False) -> None:
        """Tells the actor to leave; :meth:`step` kills it if it does not.

        :param for_good: no other actor will take its place, which it tells its clients.
        """
        self.reason = reason
        if self.child is not None:
            self.child.release(reason if for_good else "")
            self._enter(Phase.STOPPING, now_ns)
        else:
            self._enter(Phase.STOPPED, now_ns)

    def replace(self, now_ns: int) -> None:
        """Starts the actor anew in a process that gets the present specification.

        The old process is killed: if it ended in order, it would tell its clients that the channel
        has ended.
        """
        if self.child is not None and self.phase is not Phase.STOPPING:
            self._replacing = True
            self.child.kill()
            self._enter(Phase.STARTING, now_ns)

    def step(self, now_ns: int, waiter: Waiter) -> int:
        """Does what is due; returns the monotonic time of the next call in ns."""
        self._reap(now_ns, waiter)
        if self.child is not None and self._closed_ns is not None:
            return now_ns + _REAP_NS
        since = now_ns - self._since_ns
        if now_ns - self._stepped_ns > ASLEEP_NS:
            self._heard_ns = now_ns  # the broker did not listen
        self._stepped_ns = now_ns
        match self.phase:
            case Phase.BACKING_OFF:
                if now_ns < self._retry_at:
                    return self._retry_at
                self._start(now_ns, waiter)
            case Phase.FAILED:
                self._attend(now_ns)
                if since > RETRY_NS and self.wanted:
                    self.begin(now_ns, waiter)
            case Phase.STARTING if since > OPEN_NS:
                self._kill(now_ns, "did not start in time")
            case Phase.STOPPING if since > self._leave_ns:
                self._kill(now_ns, "did not leave when told to")
            case Phase.RUNNING if now_ns - self._heard_ns > HUNG_NS:
                self._kill(now_ns, "is hung")
            case Phase.RUNNING:
                self._attend(now_ns)
        return now_ns + clock.SECOND

    def _start(self, now_ns: int, waiter: Waiter) -> None:
        """Starts the actor; :meth:`reported` hears whether that worked."""
        self.code = "initialization"
        try:
            self.child = self._launch(self.name, self._spec())
        except OSError as error:  # no process, no descriptor, no memory
            self.reason = f"cannot start the {self._what}: {error}"
            self._fail(now_ns)
            return
        self._closed_ns = None
        self._killed = ""
        waiter.add(self.child)
        self._enter(Phase.STARTING, now_ns)

    def _fail(self, now_ns: int) -> None:
        """The actor cannot be started."""
        if self.reason != self._logged:  # a wanted actor is tried for ever
            self._logged = self.reason
            _logger.error("%s cannot be started: %s", self._what, self.reason)
        self._enter(Phase.FAILED, now_ns)

    def _hear(self, child: Child, now_ns: int) -> list[Ready | Alive] | None:
        """The child's new reports; ``None`` if there will not be any more."""
        try:
            reports = child.reports()
        except ReportError as error:
            self._kill(now_ns, str(error))
            return None
        for report in reports or ():
            self._heard_ns = now_ns
            if isinstance(report, Alive) and report.report:
                self.report = report.report
            if isinstance(report, Ready) and report.error:
                self.reason, self.code = report.error, report.code
        return reports

    def _kill(self, now_ns: int, why: str) -> None:
        if self.child is not None:
            _logger.error("%s: process %d %s, killing it", self._what, self.child.pid, why)
            self.reason = self._killed = f"the {self._what} {why}"
            self._since_ns = self._heard_ns = now_ns
            self.child.kill()

    def _reap(self, now_ns: int, waiter: Waiter) -> None:
        """Checks whether the child has ended. A child of its own may still have its pipe open."""
        child = self.child
        if child is None:
            return
        code = child.poll()
        if code is not None:
            self._ended(child, code, now_ns, waiter)
        elif self._closed_ns is not None and now_ns - self._closed_ns > LEAVE_NS:
            child.kill()

    def _ended(self, child: Child, code: int, now_ns: int, waiter: Waiter) -> None:
        if self._closed_ns is None:
            self._hear(child, now_ns)  # its last reports
            waiter.remove(child)
        self._closed_ns = None
        self._ending(waiter)
        child.close()
        self.child = None
        replacing, self._replacing = self._replacing, False
        if replacing and self.phase is Phase.STARTING:
            self.restarts += 1
            self.begin(now_ns, waiter)
        elif self.phase is Phase.STOPPING:
            self._enter(Phase.STOPPED, now_ns)
        elif self.phase is Phase.STARTING and not self._ran:
            self.reason = self.reason or f"the {self._what} ended while it started ({code})"
            self._fail(now_ns)
        else:
            self._back_off(child.pid, code, now_ns)

    def _back_off(self, pid: int, code: int, now_ns: int) -> None:
        """Restarts the actor after a while, or gives it up."""
        lasted = self.phase is Phase.RUNNING and now_ns - self._since_ns > LASTED_NS
        self._failures = 0 if lasted else self._failures + 1
        ended = self.reason if code == Exit.REFUSED else f"process {pid} ended with {code}"
        why = self._killed or ended
        self.reason = why
        if self._failures > GIVE_UP_AFTER:
            _logger.critical("%s: %s; giving it up", self._what, why)
            self._enter(Phase.FAILED, now_ns)
            return
        delay = min(BACKOFF_FIRST_NS << max(0, self._failures - 1), BACKOFF_MAX_NS)
        self.restarts += 1
        self._retry_at = now_ns + delay
        _logger.error("%s: %s; restart in %d ms", self._what, why, delay // clock.MILLISECOND)
        self._enter(Phase.BACKING_OFF, now_ns)

    def _enter(self, phase: Phase, now_ns: int) -> None:
        if phase is Phase.RUNNING:
            self.reason = self._logged = ""
            self._ran = True
        self.phase = phase
        self._since_ns = now_ns
        self._entered(phase)
