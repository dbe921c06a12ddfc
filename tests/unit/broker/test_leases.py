"""Leases without a broker around them: who is granted what, and what a successor goes on with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from canbroker.broker.leases import MAX_WAITING, Leases
from canbroker.system import clock
from canbroker.system.processes import end_of, start_of
from canbroker.transport import ownership
from canbroker.transport.replier import Caller
from canbroker.transport.waiter import Waiter
from canbroker.wire import control

POOLS = {"bench": ["b1", "b2"], "spare": ["s1"]}


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that runs until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def request(
    lease_id: str, pool: str = "bench", pid: int = 0, timeout_ns: int | None = None
) -> control.TakeLease:
    pid = pid or os.getpid()
    return control.TakeLease(
        lease_id=lease_id,
        pid=pid,
        started=start_of(pid) or 0,
        program="test",
        pool=pool,
        timeout_ns=timeout_ns,
    )


class Desk:
    """Leases, and what they have answered to whom."""

    def __init__(self, path: Path, is_up: Callable[[str], bool] = lambda _: True) -> None:
        self.waiter = Waiter()
        self.answers: dict[int, msgspec.Struct] = {}
        self.connected = {b"peer"}
        self.leases = Leases(
            path, POOLS, self.waiter, self._reply, is_up, self.connected.__contains__
        )
        self._asked = 0

    def take(self, wanted: control.TakeLease, identity: bytes = b"") -> msgspec.Struct | None:
        """The answer, ``None`` if it has to wait."""
        caller = self._caller(identity)
        result = self.leases.handlers["lease"](caller, wanted)
        return result or self.answers.get(caller.request_id)

    def release(self, lease_id: str) -> None:
        self.leases.handlers["release"](self._caller(), control.Release(lease_id=lease_id))

    def step(self, after_s: float = 0) -> None:
        """``after_s``: how much later than now it is done."""
        now_ns = clock.monotonic_ns() + int(after_s * clock.SECOND)
        self.leases.step(self.waiter.wait(0), now_ns)

    def held(self) -> dict[str, str]:
        return {one.lease_id: one.channel for one in self.leases.status() if one.channel}

    def _caller(self, identity: bytes = b"") -> Caller:
        self._asked += 1
        return Caller(identity, self._asked)

    def _reply(self, caller: Caller, result: msgspec.Struct) -> None:
        self.answers[caller.request_id] = result


@contextmanager
def desk(path: Path, is_up: Callable[[str], bool] = lambda _: True) -> Iterator[Desk]:
    made = Desk(path, is_up)
    try:
        yield made
    finally:
        made.leases.close("the test is over")


def leased(channel: str) -> control.Leased:
    return control.Leased(channel=channel)


def test_asking_again_changes_nothing(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        assert at.take(request("a", "spare")) == leased("s1")
        assert at.take(request("a", "spare")) == leased("s1")
        assert at.take(request("b", "spare")) is None
        assert at.take(request("c", "spare")) is None
        assert at.take(request("b", "spare")) is None  # and keeps its place
        at.release("a")
        assert at.held() == {"b": "s1"}
        assert at.answers[5] == leased("s1")  # to where it has asked last
        assert 3 not in at.answers
        at.release("b")
        at.release("b")
        assert at.held() == {"c": "s1"}


def test_channels_that_do_not_work_come_last(tmp_path: Path) -> None:
    with desk(tmp_path / "leases", lambda name: name != "b1") as at:
        assert at.take(request("a")) == leased("b2")
        assert at.take(request("b")) == leased("b1")


def test_a_caller_is_leased_only_what_it_may_know_of(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        narrow = msgspec.structs.replace(request("a"), channels=["b2", "can0"])
        assert at.take(narrow) == leased("b2")
        assert at.take(request("b")) == leased("b1")
        late = msgspec.structs.replace(narrow, lease_id="c", timeout_ns=0)
        refused = at.take(late)
        assert isinstance(refused, control.ErrorResult)
        assert "b2 is held by" in refused.message
        assert "b1" not in refused.message
        unknown = at.take(msgspec.structs.replace(late, pool="spare"))
        assert isinstance(unknown, control.ErrorResult)
        assert unknown.message == "no pool 'spare'; pools of this broker: 'bench'"
        seen = control.Viewed(channels=["b2"])
        assert at.leases.visible_pools(seen) == {"bench": ["b2"]}
        assert [status.lease_id for status in at.leases.status(seen)] == ["a"]
        assert [status.lease_id for status in at.leases.status()] == ["a", "b"]


def test_who_has_waited_for_too_long_is_told_who_has_it(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        assert at.leases.due_ns is None
        at.take(request("a", "spare"))
        now = at.take(request("b", "spare", timeout_ns=0))
        assert isinstance(now, control.ErrorResult)
        assert now.code == "timeout"
        assert f"s1 is held by process {os.getpid()} (test)" in now.message
        assert at.take(request("c", "spare", timeout_ns=clock.SECOND // 100)) is None
        assert at.leases.due_ns is not None
        while at.leases.due_ns is not None:
            at.waiter.wait(clock.remaining_ns(at.leases.due_ns))
            at.step()
        assert at.answers[3] == now
        assert len(at.leases.status()) == 1


def test_those_who_wait_are_bounded(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        at.take(request("a", "spare"))
        for number in range(MAX_WAITING):
            assert at.take(request(f"w{number}", "spare")) is None
        refused = at.take(request("late", "spare"))
        assert isinstance(refused, control.ErrorResult)
        assert refused.code == "limit"
        assert at.take(request("w7", "spare")) is None


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_what_a_process_had_or_wanted_is_free_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_descriptors: bool
) -> None:
    if not has_descriptors:  # as on systems without pidfd_open
        monkeypatch.setattr(ownership, "end_of", lambda _: None)
    with desk(tmp_path / "leases") as at, process() as other:
        at.take(request("a", "spare", other.pid))
        at.take(request("b", "spare", other.pid))
        assert at.take(request("c", "spare")) is None
        at.step()
        assert at.held() == {"a": "s1"}
        other.kill()
        if has_descriptors:
            assert at.waiter.wait(20 * clock.SECOND)
        else:
            other.wait()
        at.step(after_s=2)
        assert at.held() == {"c": "s1"}
        assert at.answers[3] == leased("s1")
        assert len(at.leases.status()) == 1


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at, process() as other:
        wanted = request("a", "spare", other.pid)
        successor = msgspec.structs.replace(wanted, started=wanted.started + 60_000)
        refused = at.take(successor)
        assert isinstance(refused, control.ErrorResult)
        assert refused.code == "invalid"
        assert not at.leases.busy


def test_a_successor_goes_on_with_those_that_live(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    killed = Desk(path)
    record = b""
    try:
        with process() as living, process() as dying:
            for lease_id, pid in (("a", living.pid), ("b", dying.pid)):
                killed.take(request(lease_id, "bench", pid))
            record = path.read_bytes()
            held = msgspec.json.decode(record)
            held.append(held[0] | {"channel": "gone", "pool": "old", "lease_id": "c"})
            held.append(held[0] | {"channel": "s1", "lease_id": "d", "started": 1})
            path.write_bytes(msgspec.json.encode(held))
            dying.kill()
            dying.wait()
            with desk(path) as at:
                assert at.held() == {"a": "b1", "c": "gone"}
                assert at.take(request("e")) == leased("b2")
                living.kill()
                assert at.waiter.wait(20 * clock.SECOND)
                at.step()
                assert at.held() == {"e": "b2"}
            assert not path.exists()  # it has ended in order
    finally:
        killed.leases.close("the test is over")


def remote(lease_id: str, pool: str = "bench") -> control.TakeLease:
    """The request of a client that names no process."""
    return control.TakeLease(lease_id=lease_id, program="gateway", pool=pool)


def test_a_lease_without_a_process_lasts_as_long_as_its_connection(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        assert at.take(remote("a", "spare"), b"peer") == leased("s1")
        assert at.take(remote("b", "spare"), b"other") is None
        at.connected.add(b"other")
        for minute in range(1, 4):
            at.step(after_s=60 * minute)
            assert at.held() == {"a": "s1"}
        at.connected.remove(b"peer")
        at.step(after_s=185)
        assert at.held() == {"a": "s1"}, "it has time to connect again"
        at.connected.add(b"peer")
        at.step(after_s=188)
        at.connected.remove(b"peer")
        at.step(after_s=197)
        assert at.held() == {"a": "s1"}, "it was there 9 s ago"
        at.step(after_s=199)
        assert at.held() == {"b": "s1"}
        assert at.answers[2] == leased("s1")
        (status,) = at.leases.status()
        assert status.pid is None


def test_a_request_without_a_process_ends_with_its_connection(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        at.take(request("a", "spare"))
        assert at.take(remote("b", "spare"), b"gone") is None
        at.step(after_s=5)
        assert len(at.leases.status()) == 2
        at.step(after_s=11)
        assert len(at.leases.status()) == 1


def test_a_lease_without_a_process_moves_to_the_connection_that_asks_again(tmp_path: Path) -> None:
    with desk(tmp_path / "leases") as at:
        assert at.take(remote("a", "spare"), b"before") == leased("s1")
        assert at.take(remote("a", "spare"), b"peer") == leased("s1")
        at.step(after_s=60)
        assert at.held() == {"a": "s1"}


def test_an_owner_without_a_process_may_return_to_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    killed = Desk(path)
    try:
        killed.take(remote("a"), b"peer")
        killed.take(remote("b"), b"\0gone")
        record = path.read_bytes()
        with desk(path) as at:
            assert at.held() == {"a": "b1", "b": "b2"}
            at.step(after_s=5)
            assert at.held() == {"a": "b1", "b": "b2"}
            at.step(after_s=11)
            assert at.held() == {"a": "b1"}
        path.write_bytes(record)
    finally:
        killed.leases.close("the test is over")


def test_a_process_is_known_by_its_start() -> None:
    mine = start_of(os.getpid())
    assert mine is not None
    with process() as other:
        start = start_of(other.pid)
        assert start is not None
        assert start >= mine
        assert start_of(other.pid) == start
        end = end_of(other.pid)
        assert end is not None
        other.kill()
        waiter = Waiter()
        waiter.add(end)
        assert waiter.wait(20 * clock.SECOND)
        end.close()
        assert start_of(other.pid) is None  # and waits to be reaped
    assert start_of(other.pid) is None
    assert end_of(other.pid) is None
