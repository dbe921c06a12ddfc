"""Actors between their birth and their loop: what they print, and what ends them."""

from __future__ import annotations

import itertools
import os
import random
import sys
from pathlib import Path

import psutil
import pytest

from canbroker import Bus, CanInitializationError, Message
from canbroker.actors.birth import REPORTS_BEGIN
from canbroker.broker.slots import SchedulerSlot
from canbroker.broker.supervisor import Phase
from canbroker.system import clock
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from canbroker.transport.waiter import Waiter
from tests.kills import FOREVER_S, LATEST_S, kill_at
from tests.support.brokers import processes_of, wait_until
from tests.support.processes import Program
from tests.support.simulated import Simulated

pytestmark = pytest.mark.long

#: Stands for the broker: starts an actor, and tells whether that has got as far as to serve.
PARENT = """
import os, select
from canbroker.actors.specs import ChannelSpec, Ready, SchedulerSpec, WebSpec
from canbroker.actors.web.options import WebOptions
from canbroker.broker.child import start
if arguments["kind"] == "channel":
    ends = {kind: f"ipc://{arguments['directory']}/a.{kind}" for kind in ("rx", "tx", "ctl")}
    spec = ChannelSpec(name="a", interface="virtual", parameters={"channel": "a"},
                       stream=ends["rx"], transmit=ends["tx"], control=ends["ctl"])
elif arguments["kind"] == "scheduler":
    spec = SchedulerSpec(address=f"ipc://{arguments['directory']}/broker")
else:
    spec = WebSpec(options=WebOptions(listen="127.0.0.1:0"),
                   address=f"ipc://{arguments['directory']}/broker")
child = start("a", spec)
say(child.pid)
select.select([child], [], [])
say(child.reports() == [Ready()])
hear()
"""

#: Kills the parent of an actor when it makes the call of that number on its way to its loop.
KILLER = """
import os, signal, sys, time
at = int(os.environ.get("KILL_AT", 0))
if at and "canbroker.actors.process" in sys.orig_argv:
    made = 0
    def count(frame, event, _):
        global made
        caller = frame.f_back if event == "call" else frame
        if event not in {"call", "c_call"} or caller is None:
            return
        where = caller.f_code
        if where.co_name not in {
            "main", "born", "_by_inheritance", "_by_standard_streams", "_run", "make", "_decoded",
            "__init__", "_start_threads"
        }:
            return
        if where.co_filename.rpartition("/canbroker/")[2] not in {
            "actors/process.py", "actors/birth.py", "actors/kinds.py", "actors/lifelines.py",
            "actors/channel/actor.py", "actors/scheduler/actor.py", "actors/web/actor.py",
            "actors/web/service.py"
        }:
            return
        made += 1
        if made == at:
            sys.setprofile(None)
            parent = os.getppid()
            os.kill(parent, signal.SIGKILL)
            while os.getppid() == parent:
                time.sleep(0.001)
    sys.setprofile(count)
"""

#: Says something before any code of ours runs: on standard output, and where actors report.
PRINTER = f"""
import os, sys
if "canbroker.actors.process" in sys.orig_argv:
    print("vendor driver 1.0", flush=True)
    at = sys.orig_argv.index("canbroker.actors.process")
    name, _, *inherited = sys.orig_argv[at + 1:]
    if name == "virtual.babbles":
        begin, reporting = (b"", int(inherited[-1])) if inherited else ({REPORTS_BEGIN!r}, 1)
        os.write(reporting, begin + b"vendor driver 1.0")
"""


@pytest.fixture
def at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that each Python runs first."""
    others = filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *others]))
    return tmp_path / "sitecustomize.py"


def test_what_is_printed_before_an_actor_begins_harms_nothing(
    runtime: Runtime, at_start: Path
) -> None:
    at_start.write_text(PRINTER)
    with Bus("a", "virtual") as bus, Bus("a", "virtual") as other:
        bus.send(Message(arbitration_id=1), timeout=10)
        assert other.recv(10) is not None
    assert "vendor driver 1.0" in runtime.log_path.read_text()


def test_a_report_that_is_not_understood_fails_that_actor_at_once(
    runtime: Runtime, at_start: Path
) -> None:
    at_start.write_text(PRINTER)
    with Bus("a", "virtual") as bus:
        with pytest.raises(CanInitializationError, match=r"not understood: 'vendor driver 1\.0"):
            Bus("babbles", "virtual")
        with Bus("a", "virtual") as other:  # the broker goes on, and so do its channels
            bus.send(Message(arbitration_id=1), timeout=10)
            assert other.recv(10) is not None


@pytest.mark.parametrize("kind", ["channel", "scheduler", "web"])
@pytest.mark.timeout(400)
def test_a_broker_is_killed_at_each_point_of_an_actors_birth(
    runtime: Runtime, at_start: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "web":
        pytest.importorskip("uvicorn", reason="needs the extra web")
    at_start.write_text(KILLER)
    runtime.prepare()
    points = itertools.count(1)
    last = next(at for at in points if _survives(runtime, monkeypatch, kind, at))
    assert last > 20, "the points were not found"
    for path in runtime.directory.iterdir():
        path.unlink()


def _survives(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, kind: str, at: int) -> bool:
    monkeypatch.setenv("KILL_AT", str(at))
    with Program(PARENT, kind=kind, directory=str(runtime.directory)) as parent:
        actor = psutil.Process(parent.said())
        try:
            ready = bool(parent.said())
        except EOFError:
            ready = False
        parent.kill()
        wait_until(lambda: _is_gone(actor), f"the actor ends (point {at})")
    return ready


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody's child waits to be reaped
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("channel", ["waits", "leaves a thread"])
def test_a_driver_that_never_comes_back_does_not_keep_the_process(
    runtime: Runtime, plugins: None, channel: str
) -> None:
    with Program(
        """
        say("up")
        hear()
        try:
            Bus(arguments["channel"], "nasty")
        except canbroker.CanError as error:
            say(str(error))
        """,
        channel=channel,
    ) as opener:
        opener.said()
        opener.tell("open")
        if channel == "leaves a thread":
            assert "no such device" in opener.said()
            wait_until(lambda: len(processes_of(runtime)) == 1, "the actor ends")
            return
        wait_until(lambda: len(processes_of(runtime)) == 2, "the actor has begun")
        (broker,) = [p for p in processes_of(runtime) if EntryPoint.BROKER.is_in(p.cmdline())]
        broker.kill()
        wait_until(lambda: not processes_of(runtime), "the actor ends")
    for path in runtime.directory.iterdir():
        path.unlink()


def test_brokers_that_are_killed_while_they_start_leave_nothing() -> None:
    chance = random.Random()
    with Simulated() as adapter:
        for _ in range(5):
            seconds = chance.uniform(0.0, LATEST_S)
            assert not kill_at(seconds, adapter.path, FOREVER_S), f"killed after {seconds} s"


def test_a_start_that_the_system_refuses_is_said_once_and_tried_every_5_s(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process, no descriptor, or no memory is left: as the system says it, here of a program
    that is not there."""
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    slot = SchedulerSlot(runtime, "info")
    waiter = Waiter()
    with caplog.at_level("INFO"):
        slot.begin(clock.monotonic_ns(), waiter)
        assert (slot.phase, slot.child) == (Phase.FAILED, None)
        assert "cannot start the scheduler: [Errno 2]" in slot.reason
        now = clock.monotonic_ns()
        for seconds in range(1, 5):
            slot.step(now + seconds * clock.SECOND, waiter)
        assert len(caplog.records) == 1
        assert caplog.records[0].exc_info is None
        monkeypatch.undo()
        slot.step(now + 6 * clock.SECOND, waiter)  # it is wanted, so it is tried again
    assert slot.phase is Phase.STARTING
    slot.stop(clock.monotonic_ns(), "done")
    wait_until(lambda: slot.step(clock.monotonic_ns(), waiter) and not slot.child, "it ends")
    for path in runtime.directory.glob("*"):
        path.unlink()
