"""Leases: a pool's channels, each to one at a time, whatever happens to who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import canbroker
from canbroker import (
    Bus,
    CanInitializationError,
    CanOperationError,
    CanTimeoutError,
    Lease,
    Message,
    lease,
)
from canbroker.bus import lease as home
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.transport.runtime import Runtime
from canbroker.wire.status import LeaseStatus
from tests.support.brokers import status_of, stop_broker, wait_until
from tests.support.processes import Program

BENCH = "".join(
    f'[channels.{name}]\ninterface = "virtual"\npool = "{pool}"\n'
    for name, pool in (("b1", "bench"), ("b2", "bench"), ("s1", "spare"))
)

TAKER = """
leased = canbroker.lease(arguments["pool"], arguments["timeout"])
say(leased.channel)
if hear() == "end":
    leased.release()
"""


@contextmanager
def serving(directory: Path, runtime: Runtime) -> Iterator[subprocess.Popen[bytes]]:
    """A broker with the pools, which may be killed; else it is stopped."""
    path = directory / "bench.toml"
    path.write_text(BENCH)
    command = EntryPoint.COMMAND.command("serve", "-c", str(path))
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        while b"ready at" not in (line := server.stderr.readline()):
            assert line, "the broker has ended"
        try:
            yield server
            if server.poll() is None:
                stop_broker(runtime)
        finally:
            server.kill()
            server.stderr.close()


@pytest.fixture
def server(runtime: Runtime, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with serving(tmp_path, runtime) as running:
        yield running


def leases_of(runtime: Runtime) -> list[LeaseStatus]:
    return status_of(runtime).leases


def taken(runtime: Runtime) -> set[str]:
    return {one.channel for one in leases_of(runtime) if one.channel is not None}


def taker(pool: str = "bench", timeout: float | None = 20) -> Program:
    return Program(TAKER, pool=pool, timeout=timeout)


pytestmark = pytest.mark.usefixtures("server")


def test_each_channel_to_one(runtime: Runtime) -> None:
    with lease("bench") as first, lease("bench", 0) as second, lease("spare", 0) as other:
        assert first.pool == "bench"
        assert {first.channel, second.channel} == {"b1", "b2"}
        assert other.channel == "s1"
        began = time.monotonic()
        with pytest.raises(
            CanTimeoutError, match=rf"'bench'.*b1 is held by process {os.getpid()} \("
        ) as late:
            lease("bench", 0.2)
        assert time.monotonic() - began >= 0.2
        assert "b2 is held by process" in str(late.value)
        assert taken(runtime) == {"b1", "b2", "s1"}
        with Bus(first.channel) as bus, Bus(first.channel) as another:  # as always
            bus.send(Message(arbitration_id=1, is_extended_id=False), timeout=10)
            another.send(Message(arbitration_id=2, is_extended_id=False), timeout=10)
    first.release()  # again
    assert leases_of(runtime) == []
    assert not runtime.leases_path.exists()


@pytest.mark.parametrize(
    ("pool", "error", "named"),
    [
        ("bunch", CanInitializationError, "no pool 'bunch'.*'bench', 'spare'"),
        ("", ValueError, "name of printable characters"),
        ("a\nb", ValueError, "name of printable characters"),
    ],
)
def test_a_pool_that_is_none(pool: str, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        lease(pool, 1)


def test_first_come_first_served(runtime: Runtime) -> None:
    with ExitStack() as stack:
        mine = [stack.enter_context(lease("bench", 0)) for _ in range(2)]
        waiting = []
        for count in range(1, 5):
            waiting.append(stack.enter_context(taker()))
            wait_until(lambda: len(leases_of(runtime)) == 2 + count, "it waits")  # noqa: B023
        pids = [one.pid for one in leases_of(runtime) if one.channel is None]
        assert pids == [program.pid for program in waiting]
        waiting[1].kill()  # who is gone is passed over
        wait_until(lambda: len(leases_of(runtime)) == 5, "its place is gone")
        mine[1].release()
        assert waiting[0].said() == mine[1].channel
        waiting[0].tell("end")
        assert waiting[2].said() == mine[1].channel
        waiting[2].kill()
        assert waiting[3].said() == mine[1].channel
        waiting[3].tell("end")
        assert waiting[3].end() == 0
    assert leases_of(runtime) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_given_back_by_whatever_ends_its_process(
    runtime: Runtime, number: signal.Signals
) -> None:
    with taker("spare") as program:
        assert program.said() == "s1"
        with pytest.raises(CanTimeoutError, match=rf"s1 is held by process {program.pid} \(-c"):
            lease("spare", 0)
        program.signal(number)
        with lease("spare", 20) as next_one:
            assert next_one.channel == "s1"


def test_garbage_is_collected_with_a_warning(runtime: Runtime) -> None:
    leased: Lease | None = lease("spare", 0)
    with pytest.warns(ResourceWarning, match="<Lease 's1' of pool 'spare'> was not released"):
        leased = None
    assert leased is None
    wait_until(lambda: not leases_of(runtime), "it is given back")


def test_the_end_of_a_program_gives_it_back_with_a_warning(runtime: Runtime) -> None:
    program = "import canbroker; kept = canbroker.lease('spare', 0); bus = canbroker.Bus('s1')"
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", program], check=True, capture_output=True, text=True
    )
    assert "<Lease 's1' of pool 'spare'> was not released" in ended.stderr
    assert ended.stderr.index("Bus 's1'") < ended.stderr.index("<Lease")  # what was opened last
    assert leases_of(runtime) == []


def test_a_forked_child_does_not_own_it(runtime: Runtime) -> None:
    program = """
    import os
    leased = canbroker.lease("spare", 0)
    child = os.fork()
    if not child:
        leased.release()
        del leased
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    say("forked")
    hear()
    leased.release()
    """
    with Program(program) as parent:
        assert parent.said() == "forked"
        assert taken(runtime) == {"s1"}
        parent.tell("end")
        assert parent.end() == 0
        assert taken(runtime) == set()


def test_an_interrupted_wait_leaves_nothing(runtime: Runtime) -> None:
    with lease("spare", 0) as mine:
        source = """
        try:
            canbroker.lease("spare")
        except KeyboardInterrupt:
            say("interrupted")
            hear()
        """
        with Program(source) as program:
            wait_until(lambda: len(leases_of(runtime)) == 2, "it waits")
            program.signal(signal.SIGINT)
            assert program.said() == "interrupted"
            assert len(leases_of(runtime)) == 1  # while the process lives
        mine.release()
        assert leases_of(runtime) == []


def test_leases_outlive_a_killed_broker(
    runtime: Runtime, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with taker() as living, taker() as dying:
        names = [living.said(), dying.said()]
        mine = lease("spare", 0)
        server.kill()
        server.wait()
        with pytest.raises(CanInitializationError, match="no broker"):
            lease("spare", 0)
        with pytest.raises(CanOperationError, match="does not answer"):
            mine.release()
        dying.kill()
        with serving(tmp_path, runtime):
            assert taken(runtime) == {names[0], "s1"}
            with lease("bench", 0) as free:
                assert free.channel == names[1]
                with pytest.raises(
                    CanTimeoutError, match=f"{names[0]} is held by process {living.pid}"
                ):
                    lease("bench", 0)
            living.kill()  # and is watched by the successor
            mine.release()
            wait_until(lambda: leases_of(runtime) == [], "all are given back")


def test_a_release_that_failed_does_not_happen_later(
    runtime: Runtime, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    mine, other = lease("spare", 0), lease("bench", 0)
    server.kill()
    server.wait()
    with pytest.raises(CanOperationError, match="does not answer"):
        mine.release()
    with serving(tmp_path, runtime):
        other.release()  # by the same connection, so what is queued there has arrived by now
        assert taken(runtime) == {"s1"}
        mine.release()
        assert taken(runtime) == set()


def test_who_waits_is_told_that_the_broker_stops(runtime: Runtime) -> None:
    with lease("spare", 0):
        program = """
        try:
            canbroker.lease("spare")
        except canbroker.CanOperationError as error:
            say(str(error))
        """
        with Program(program) as waiting:
            wait_until(lambda: len(leases_of(runtime)) == 2, "it waits")
            assert stop_broker(runtime)
            assert "told to stop" in waiting.said()
    assert not runtime.leases_path.exists()


def test_a_record_that_is_not_readable_is_left_behind(
    runtime: Runtime, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    server.kill()
    server.wait()
    runtime.leases_path.write_text("[{]")
    with serving(tmp_path, runtime), lease("spare", 0) as mine:
        assert taken(runtime) == {mine.channel}


def test_no_broker_is_started_for_it(runtime: Runtime) -> None:
    assert stop_broker(runtime)
    with pytest.raises(CanInitializationError, match="no broker"):
        lease("bench", 1)
    lock = BrokerLock.take(runtime.lock_path)
    assert lock is not None
    lock.release()


def test_status_shows_who_has_what_and_who_waits(runtime: Runtime) -> None:
    command = EntryPoint.COMMAND.command("status")
    with lease("bench", 0) as mine, lease("spare", 0), taker("spare") as waiting:
        wait_until(lambda: len(leases_of(runtime)) == 3, "it waits")
        with Bus(mine.channel, exclusive=True):
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = [line.split() for line in shown.splitlines()]
        assert ["bench", mine.channel, str(os.getpid())] in [line[:3] for line in lines]
        assert ["bench", "b2", "free"] in lines
        assert ["spare", "waits", str(waiting.pid)] in [line[:3] for line in lines]
        assert f"{mine.channel}: exclusive to client " in shown
        assert f"(process {os.getpid()}: " in shown


def test_both_names_are_one() -> None:
    assert canbroker.lease is home.lease is lease
