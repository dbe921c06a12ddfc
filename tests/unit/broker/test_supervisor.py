"""The life of an actor process, with scripted children and passed-in time."""

from __future__ import annotations

import itertools
from collections import deque
from typing import cast

import pytest

from canbroker.actors.kinds import KINDS, Kind
from canbroker.actors.specs import ActorSpec, Alive, Ready, SchedulerSpec
from canbroker.broker.child_reports import ReportError
from canbroker.broker.supervisor import (
    BACKOFF_FIRST_NS,
    BACKOFF_MAX_NS,
    GIVE_UP_AFTER,
    HUNG_NS,
    LASTED_NS,
    LEAVE_NS,
    OPEN_NS,
    RETRY_NS,
    ActorSlot,
    Phase,
)
from canbroker.system.clock import SECOND
from canbroker.system.service import Exit
from canbroker.transport.sockets import Context
from canbroker.transport.waiter import Waiter

KILLED = -9
pids = itertools.count(100)


class ScriptedChild:
    """A process that does what the test says, when it says so."""

    def __init__(self, *, stubborn: bool = False) -> None:
        """``stubborn``: it stays when its lifeline ends."""
        self.pid = next(pids)
        self.code: int | None = None
        self.said: deque[Ready | Alive | ReportError] = deque()
        self.heard: list[str] = []  # last words, one for each release
        self.is_killed = False
        self.is_closed = False
        self._stubborn = stubborn

    def fileno(self) -> int:
        raise AssertionError("watched by a waiter that is not scripted")

    def reports(self) -> list[Ready | Alive] | None:
        if not self.said:
            return None
        report = self.said.popleft()
        if isinstance(report, ReportError):
            raise report
        return [report]

    def release(self, last_words: str = "") -> None:
        self.heard.append(last_words)
        if not self._stubborn:
            self.code = Exit.OK

    def kill(self) -> None:
        self.is_killed = True
        self.code = KILLED

    def poll(self) -> int | None:
        return self.code

    def close(self) -> None:
        self.is_closed = True


class ScriptedWaiter:
    """Only notes what it would watch."""

    def __init__(self) -> None:
        self.watched: set[object] = set()

    def add(self, item: object) -> None:
        assert item not in self.watched
        self.watched.add(item)

    def remove(self, item: object) -> None:
        self.watched.remove(item)


class Bench(ActorSlot):
    """A slot whose children are scripted, and the time in which it lives."""

    def __init__(self, kind: Kind = KINDS["scheduler"], *, configured: bool = False) -> None:
        super().__init__(kind, "x", "actor of 'x'", configured=configured, launch=self._fake)
        self.now_ns = 1_000 * SECOND
        self.waiter = ScriptedWaiter()
        self.children: list[ScriptedChild] = []
        self.attended: list[int] = []
        self.refusal: OSError | None = None
        self.stubborn = False

    def _spec(self) -> ActorSpec:
        return SchedulerSpec(address="ipc:///x/broker")

    def _fake(self, name: str, spec: ActorSpec) -> ScriptedChild:
        assert (name, spec) == ("x", self._spec())
        if self.refusal is not None:
            raise self.refusal
        self.children.append(ScriptedChild(stubborn=self.stubborn))
        return self.children[-1]

    def _attend(self, now_ns: int) -> None:
        self.attended.append(now_ns)

    @property
    def scripted(self) -> ScriptedChild:
        """The newest child."""
        return self.children[-1]

    def start(self) -> None:
        self.begin(self.now_ns, cast(Waiter, self.waiter))

    def run_to(self, now_ns: int) -> int:
        """Steps at ``now_ns``; returns when the slot wants its next step."""
        self.now_ns = now_ns
        return self.step(now_ns, cast(Waiter, self.waiter))

    def after(self, nanoseconds: int) -> int:
        return self.run_to(self.now_ns + nanoseconds)

    def hears(self, *reports: Ready | Alive | ReportError) -> None:
        """The child reports this; nothing is the end of its pipe."""
        for report in reports:
            self.scripted.said.append(report)
            self.reported(self.now_ns, cast(Context, None), cast(Waiter, self.waiter))
        if not reports:
            self.reported(self.now_ns, cast(Context, None), cast(Waiter, self.waiter))

    def lives_for(self, nanoseconds: int) -> None:
        """Steps every second, and hears each time that the child lives."""
        end = self.now_ns + nanoseconds
        while self.now_ns < end:
            self.after(min(SECOND, end - self.now_ns))
            self.hears(Alive())

    def serves(self) -> None:
        self.start()
        self.hears(Ready())
        assert self.phase is Phase.RUNNING

    def crashes(self, code: int = Exit.CRASHED) -> None:
        self.scripted.code = code
        self.after(0)


def test_a_start() -> None:
    slot = Bench()
    assert (slot.phase, slot.child) == (Phase.STOPPED, None)
    slot.start()
    assert slot.phase is Phase.STARTING
    assert slot.waiter.watched == {slot.scripted}
    slot.hears(Alive())
    assert slot.phase is Phase.STARTING  # not ready yet
    slot.hears(Ready())
    assert (slot.phase, slot.reason, slot.restarts) == (Phase.RUNNING, "", 0)
    assert slot.after(SECOND) == slot.now_ns + SECOND
    assert slot.attended == [slot.now_ns]


def test_who_wants_it_depends_on_its_kind() -> None:
    slot = Bench()
    assert not slot.wanted
    slot.start()
    assert slot.wanted
    configured = Bench(configured=True)
    assert not configured.wanted  # a scheduler has no place in the configuration file
    channel = Bench(KINDS["channel"])
    channel.start()
    assert not channel.wanted  # by its clients, whatever has been requested once
    assert Bench(KINDS["channel"], configured=True).wanted


def test_a_child_that_refuses_to_start_is_tried_again_while_it_is_wanted() -> None:
    slot = Bench()
    slot.start()
    slot.hears(Ready("no such adapter", "interface"))
    slot.crashes(Exit.REFUSED)
    assert (slot.phase, slot.reason, slot.code) == (Phase.FAILED, "no such adapter", "interface")
    slot.after(RETRY_NS)
    assert slot.phase is Phase.FAILED
    slot.after(1)
    assert (slot.phase, slot.code) == (Phase.STARTING, "initialization")
    assert len(slot.children) == 2


def test_what_nobody_wants_is_not_tried_again() -> None:
    slot = Bench(KINDS["channel"])
    slot.start()
    slot.crashes(3)
    assert (slot.phase, slot.reason) == (
        Phase.FAILED,
        "the actor of 'x' ended while it started (3)",
    )
    slot.after(100 * RETRY_NS)
    assert len(slot.children) == 1


def test_a_start_that_the_system_refuses() -> None:
    slot = Bench()
    slot.refusal = OSError("no process is left")
    slot.start()
    assert (slot.phase, slot.children) == (Phase.FAILED, [])
    assert slot.reason == "cannot start the actor of 'x': no process is left"
    assert (slot.child, slot.waiter.watched) == (None, set())
    slot.refusal = None
    slot.after(RETRY_NS + 1)
    assert slot.phase is Phase.STARTING


def test_a_child_that_does_not_report_is_killed() -> None:
    slot = Bench()
    slot.start()
    slot.after(OPEN_NS)
    assert not slot.scripted.is_killed
    slot.after(1)
    assert slot.scripted.is_killed
    slot.after(0)
    assert slot.phase is Phase.FAILED
    assert slot.reason == "the actor of 'x' did not start in time"


def test_a_hung_child_is_killed_and_replaced() -> None:
    slot = Bench()
    slot.serves()
    slot.lives_for(60 * SECOND)
    hung = slot.scripted
    for _ in range(HUNG_NS // SECOND):
        slot.after(SECOND)
        assert not hung.is_killed
    slot.after(1)
    assert hung.is_killed
    slot.after(0)
    assert (slot.phase, slot.reason) == (Phase.BACKING_OFF, "the actor of 'x' is hung")
    slot.after(BACKOFF_FIRST_NS)
    assert slot.phase is Phase.STARTING


def test_a_broker_that_was_stopped_itself_takes_nobody_for_hung() -> None:
    slot = Bench()
    slot.serves()
    slot.lives_for(SECOND)
    slot.after(10 * HUNG_NS)
    assert not slot.scripted.is_killed
    slot.after(SECOND)
    slot.hears(Alive())
    assert slot.phase is Phase.RUNNING


def test_a_report_that_makes_no_sense_ends_the_child() -> None:
    slot = Bench()
    slot.start()
    slot.hears(ReportError("reports garbage"))
    assert slot.scripted.is_killed
    assert (slot.phase, slot.reason) == (Phase.FAILED, "the actor of 'x' reports garbage")


def test_the_delay_of_a_restart_doubles_up_to_the_longest_one() -> None:
    slot = Bench()
    slot.serves()
    delays = []
    for restarts in range(1, GIVE_UP_AFTER + 1):
        slot.crashes()
        assert (slot.phase, slot.restarts) == (Phase.BACKING_OFF, restarts)
        assert slot.reason == f"process {slot.scripted.pid} ended with 70"
        begun = slot.now_ns
        retry_at = slot.after(0)
        delays.append(retry_at - begun)
        assert slot.run_to(retry_at - 1) == retry_at
        assert slot.phase is Phase.BACKING_OFF
        slot.run_to(retry_at)
        slot.hears(Ready())
    doubled = [BACKOFF_FIRST_NS << power for power in range(GIVE_UP_AFTER)]
    assert delays == [min(delay, BACKOFF_MAX_NS) for delay in doubled]
    assert delays[-1] == BACKOFF_MAX_NS


def test_too_many_restarts_are_given_up_until_the_next_retry() -> None:
    slot = Bench()
    slot.serves()
    for _ in range(GIVE_UP_AFTER):
        slot.crashes()
        slot.after(BACKOFF_MAX_NS)
        assert slot.phase is Phase.STARTING
    slot.crashes()
    assert (slot.phase, slot.restarts) == (Phase.FAILED, GIVE_UP_AFTER)
    slot.after(RETRY_NS + 1)
    slot.hears(Ready())
    assert slot.phase is Phase.RUNNING


def test_an_actor_that_lasted_begins_with_the_first_delay_again() -> None:
    slot = Bench()
    slot.serves()
    for _ in range(2 * GIVE_UP_AFTER):
        slot.lives_for(LASTED_NS + 1)
        slot.crashes()
        assert slot.after(0) == slot.now_ns + BACKOFF_FIRST_NS
        slot.after(BACKOFF_FIRST_NS)
        slot.hears(Ready())
    assert slot.phase is Phase.RUNNING


@pytest.mark.parametrize("for_good", [True, False])
def test_a_stop_hands_on_the_last_words(for_good: bool) -> None:
    slot = Bench()
    slot.serves()
    slot.stop(slot.now_ns, "the broker ends", for_good=for_good)
    assert slot.phase is Phase.STOPPING
    assert slot.scripted.heard == ["the broker ends" if for_good else ""]
    slot.after(0)
    assert (slot.phase, slot.reason, slot.child) == (Phase.STOPPED, "the broker ends", None)


def test_a_stop_without_a_child_is_done_at_once() -> None:
    slot = Bench()
    slot.stop(slot.now_ns, "its last client has left")
    assert (slot.phase, slot.reason) == (Phase.STOPPED, "its last client has left")


def test_a_child_that_does_not_leave_is_killed() -> None:
    slot = Bench()
    slot.stubborn = True
    slot.serves()
    slot.stop(slot.now_ns, "the broker ends")
    slot.after(LEAVE_NS)
    assert not slot.scripted.is_killed
    slot.after(1)
    assert slot.scripted.is_killed
    slot.after(0)
    assert slot.phase is Phase.STOPPED


def test_a_child_that_has_closed_its_pipe_and_goes_on_is_killed() -> None:
    slot = Bench()
    slot.serves()
    slot.hears()
    assert slot.waiter.watched == set()
    assert slot.after(0) - slot.now_ns < SECOND  # its end is looked for soon
    slot.after(LEAVE_NS)
    assert not slot.scripted.is_killed
    slot.after(1)
    assert slot.scripted.is_killed


@pytest.mark.parametrize("by_pipe", [True, False])
def test_nothing_is_left_of_a_child_that_has_ended(by_pipe: bool) -> None:
    """Its pipe tells of its end, or a child of its own keeps that open."""
    slot = Bench()
    slot.serves()
    ended = slot.scripted
    ended.code = Exit.CRASHED
    if by_pipe:
        slot.hears()
    else:
        slot.after(0)
    assert (slot.child, slot.waiter.watched) == (None, set())
    assert ended.is_closed


def test_the_last_reports_of_a_child_that_has_ended_are_heard() -> None:
    slot = Bench()
    slot.start()
    slot.scripted.said.append(Ready("the adapter is gone"))
    slot.crashes(Exit.REFUSED)
    assert (slot.phase, slot.reason) == (Phase.FAILED, "the adapter is gone")


def test_a_replaced_child_is_killed_and_its_successor_starts_at_once() -> None:
    slot = Bench()
    slot.serves()
    old = slot.scripted
    slot.replace(slot.now_ns)
    assert (old.is_killed, old.heard) == (True, [])
    slot.after(0)
    assert slot.scripted is not old
    assert (slot.phase, slot.restarts) == (Phase.STARTING, 1)


def test_a_stop_overtakes_a_replacement() -> None:
    slot = Bench()
    slot.serves()
    slot.replace(slot.now_ns)
    slot.stop(slot.now_ns, "its last client has left")
    slot.after(0)
    assert slot.phase is Phase.STOPPED
    assert len(slot.children) == 1
