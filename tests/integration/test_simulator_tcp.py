"""The simulated adapter where there are no pseudo-terminals: over TCP on this host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker.backends import AdapterGoneError, Transmit
from canbroker.errors import CanInitializationError
from canbroker.model.frame import Frame
from tests.support.simulated import DEADLINE_S, Simulated, collect, opened_slcan, read_count


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that a test starts."""
    monkeypatch.setenv("CANBROKER_PORTABLE", "1")


@pytest.fixture
def adapter() -> Iterator[Simulated]:
    with Simulated() as adapter:
        yield adapter


def test_frames_pass_in_both_directions(adapter: Simulated) -> None:
    assert adapter.path.startswith("socket://127.0.0.1:")
    with opened_slcan(adapter.path) as backend:
        adapter.command("receive 123#11")
        (frame,) = read_count(backend, 1)
        assert isinstance(frame, Frame)
        assert (frame.arbitration_id, frame.data) == (0x123, b"\x11")
        backend.send([Transmit(Frame(0, 0x321, 0, b"\x55"), "me", None, 0)])
        (sent,) = read_count(backend, 1)
        assert isinstance(sent, Transmit)
        assert adapter.accepted() == ["321#55"]
    assert adapter.stop()["event"] == "exit"


def test_one_program_at_a_time(adapter: Simulated) -> None:
    with (
        opened_slcan(adapter.path),
        pytest.raises(CanInitializationError),
        opened_slcan(adapter.path),
    ):
        pass
    with opened_slcan(adapter.path) as backend:  # as it is free again
        adapter.command("receive 7FF#")
        assert len(read_count(backend, 1)) == 1


def test_it_is_gone_when_it_is_unplugged_and_at_its_place_when_it_returns(
    adapter: Simulated,
) -> None:
    path = adapter.path
    with opened_slcan(path) as backend:
        adapter.command("unplug")
        with pytest.raises(AdapterGoneError, match="closed the connection"):
            collect(backend, lambda _: False, [])
    with pytest.raises(CanInitializationError), opened_slcan(path):
        pass
    assert adapter.replug() == path
    with opened_slcan(path) as backend:
        adapter.command("receive 001#22")
        assert len(read_count(backend, 1)) == 1


def test_a_board_boots_when_a_program_opens_its_port() -> None:
    with (
        Simulated(firmware="esp32", boot=0.2) as adapter,
        # Not by pyserial, which drops what has arrived when it has opened.
        socket.create_connection(("127.0.0.1", int(adapter.path.rpartition(":")[2]))) as line,
    ):
        line.settimeout(DEADLINE_S)
        assert line.recv(1), "it says something when it boots"


def test_a_link_needs_a_pseudo_terminal(tmp_path: Path) -> None:
    link = str(tmp_path / "adapter")
    with pytest.raises(EOFError, match="only a pseudo-terminal of Linux can have a link"):
        Simulated(link=link)
