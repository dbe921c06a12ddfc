"""The audit log: what it says, how long it gets, and who may read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canbroker.actors.gateway.audit import KEPT, Audit
from canbroker.system.clock import MILLISECOND, SECOND
from tests.support.systems import posix


class Desk:
    """An audit log, and a time that only the test moves."""

    def __init__(self, path: Path, max_bytes: int = 1 << 20) -> None:
        self.path = path
        self.now_ns = 5 * SECOND
        self.audit = Audit(path, lambda: self.now_ns, max_bytes)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def step(self, after_ns: int) -> None:
        self.now_ns += after_ns
        self.audit.step(self.now_ns)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "audit.log")
    yield made
    made.audit.close()


def test_each_event_is_a_line_of_json(desk: Desk) -> None:
    desk.audit.note("connect", "bob", key="cb1:x", address="192.0.2.1", socket="can0.rx")
    desk.audit.note("refused", "bob", "transmit", why="'bob' may not transmit 223")
    connect, refused = desk.lines()
    assert connect.pop("time").endswith("Z")
    assert connect == {
        "event": "connect",
        "user": "bob",
        "key": "cb1:x",
        "address": "192.0.2.1",
        "socket": "can0.rx",
    }
    assert refused.pop("time") >= "2020"
    assert refused == {
        "event": "refused",
        "user": "bob",
        "kind": "transmit",
        "why": "'bob' may not transmit 223",
    }


def test_only_its_owner_may_read_it(desk: Desk) -> None:
    desk.audit.note("connect", "bob")
    assert desk.path.stat().st_mode & 0o777 == 0o600


def test_a_flood_is_a_line_each_second_with_the_number(desk: Desk) -> None:
    for number in range(10_000):
        desk.audit.note("refused", "bob", "transmit", why=f"may not transmit {number}")
        desk.now_ns += SECOND // 4_000
    desk.step(SECOND)
    lines = desk.lines()
    assert len(lines) == 4
    assert sum(line.get("count", 1) for line in lines) == 10_000
    assert lines[-1]["why"] == "may not transmit 9999"
    desk.step(SECOND)
    assert len(desk.lines()) == 4


def test_users_and_kinds_are_counted_apart(desk: Desk) -> None:
    for user in ("bob", "eve"):
        for kind in ("transmit", "role"):
            desk.audit.note("refused", user, kind)
            desk.audit.note("refused", user, kind)
    assert len(desk.lines()) == 4
    desk.step(2 * SECOND)
    assert [line.get("count", 1) for line in desk.lines()] == [1] * 8


def test_what_was_held_back_is_written_at_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "audit.log")
    for _ in range(3):
        desk.audit.note("refused", "bob", "transmit")
    desk.audit.close()
    assert [line.get("count", 1) for line in desk.lines()] == [1, 2]


def test_kinds_without_end_are_bounded(desk: Desk) -> None:
    for number in range(5_000):
        desk.audit.note("refused", f"user {number}", "transmit")
    assert len(desk.lines()) == 1_025
    desk.step(2 * SECOND)
    assert desk.lines()[-1]["count"] == 5_000 - 1_025
    desk.step(2 * SECOND)
    assert desk.audit._recent == {}


def test_it_is_rotated_by_size(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "audit.log", max_bytes=2_000)
    for number in range(500):
        desk.audit.note("refused", "bob", "transmit", why="x" * 100, number=str(number))
        desk.step(1001 * MILLISECOND)
    desk.audit.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + KEPT
    for path in files:
        assert path.stat().st_size <= 2_000
        assert path.stat().st_mode & 0o777 == 0o600
        assert all(json.loads(line) for line in path.read_text().splitlines())
    assert desk.lines()[-1]["number"] == "499"


@posix("files that are removed while they are open")
def test_a_log_that_was_removed_is_made_again(desk: Desk) -> None:
    desk.audit.note("connect", "bob")
    desk.path.unlink()
    desk.step(2 * SECOND)
    desk.audit.note("connect", "eve")
    assert [line["user"] for line in desk.lines()] == ["eve"]


def test_a_log_that_cannot_be_written_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = Audit(tmp_path / "gone" / "audit.log")
    audit.note("connect", "bob")
    audit.close()
    assert "audit log not written" in caplog.text
    assert capsys.readouterr().err == ""


def test_texts_of_others_stay_in_their_line(desk: Desk) -> None:
    desk.audit.note("refused", "bob", "client", why='x\n{"event": "connect"}\x1b[2J' + "y" * 10_000)
    (line,) = desk.lines()
    assert len(line["why"]) == 512
