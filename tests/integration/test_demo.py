"""The demonstration: exact on real processes, honest when it is not, and gone afterwards."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from canbroker.demo import ledger
from canbroker.demo.ledger import Report, Tally
from canbroker.demo.roles import CanFilter, Role, cast
from canbroker.logs.candump import format_log_line
from canbroker.model.frame import EXTENDED, REMOTE, Frame
from canbroker.simulator.traffic import generate_vehicle
from tests.support.brokers import wait_until

_PROGRAM = """
import sys
from pathlib import Path
from canbroker.demo.run import run

if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), float(sys.argv[2])))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """The demonstration's directory for temporary files, which must be empty in the end."""
    # Not tmp_path: the paths of Unix sockets are short.
    place = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    try:
        yield place
        assert list(place.iterdir()) == []
        wait_until(lambda: not _processes(place), "every process of the demonstration ends")
    finally:
        for process in _processes(place):
            process.kill()
        shutil.rmtree(place)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two seconds of a vehicle's traffic."""
    path = tmp_path / "trace.log"
    lines = [format_log_line(entry.frame, "can0") for entry in generate_vehicle(2, seed=7)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _processes(place: Path) -> list[psutil.Process]:
    """Every process, anybody's child, whose runtime directory is under ``place``."""
    found = []
    for process in psutil.process_iter():
        try:
            runtime = process.environ().get("XDG_RUNTIME_DIR", "")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if runtime.startswith(f"{place}/"):
            found.append(process)
    return found


def _demo(trace: Path, speed: float, place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(trace), str(speed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"TMPDIR": str(place), "COLUMNS": "80"},
        text=True,
    )


def _until_ready(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "clients are ready" in line:
            return
    raise AssertionError(f"the demonstration ended: {demo.communicate()}")


def test_exact(trace: Path, place: Path) -> None:
    with _demo(trace, 2.0, place) as demo:
        out, err = demo.communicate(timeout=50)
    frames = len(trace.read_text().splitlines())
    assert (demo.returncode, err) == (0, ""), out
    assert out.splitlines()[-1] == "lost 0 — ledger exact"
    assert f"{frames} frames on the adapter" in out
    row = rf"^ ?all +every frame +{frames} +{frames} +0 +\d+ +\d+ +exact"
    assert re.search(row, out, re.MULTILINE), out
    assert len(re.findall(r"exact *$", out, re.MULTILINE)) == 6  # five clients and the verdict


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(trace: Path, place: Path, number: signal.Signals) -> None:
    with _demo(trace, 0.1, place) as demo:
        _until_ready(demo)
        assert len(_processes(place)) == 8  # adapter, five clients, broker, channel actor
        demo.send_signal(number)
        _, err = demo.communicate(timeout=50)
    assert demo.returncode != 0
    assert "KeyboardInterrupt" in err


def test_killed(trace: Path, place: Path) -> None:
    """Nobody can tidy up then, but every process leaves by itself."""
    with _demo(trace, 0.1, place) as demo:
        _until_ready(demo)
        demo.kill()
        demo.communicate(timeout=50)
    wait_until(lambda: not _processes(place), "all processes leave", timeout=30)
    for directory in place.iterdir():
        shutil.rmtree(directory)


def test_client_that_dies_is_named(trace: Path, place: Path) -> None:
    with _demo(trace, 0.1, place) as demo:
        _until_ready(demo)
        (victim,) = (p for p in _processes(place) if "plain_subscriber" in " ".join(p.cmdline()))
        victim.kill()
        _, err = demo.communicate(timeout=50)
    assert demo.returncode != 0
    assert "plain ended with -9" in err


def test_trace_that_is_none(tmp_path: Path, place: Path) -> None:
    bad = tmp_path / "bad.log"
    bad.write_text("(1.5) can0 123#0\nno frame\n")
    with _demo(bad, 1.0, place) as demo:
        _, err = demo.communicate(timeout=50)
    assert demo.returncode != 0
    assert "bad.log contains no frames: skipped 2 lines" in err


def test_what_of_a_trace_is_not_a_frame_is_said(tmp_path: Path, place: Path) -> None:
    trace = tmp_path / "world.log"
    trace.write_bytes(b"\xef\xbb\xbfhello [/bold]\r\n(1.5) can0 123#00\r\n(1.6) can0 124#\r\n(1.")
    with _demo(trace, 1.0, place) as demo:
        out, err = demo.communicate(timeout=50)
    assert (demo.returncode, err) == (0, "")
    assert (
        "skipped 2 lines without a frame to send: 1 of other text (line 1: 'hello [/bold]'" in out
    )


# ------------------------------------------------------------------------------------- the ledger

FRAMES = [
    Frame(0, 0x123, 0, b"\x01"),
    Frame(0, 0x123, EXTENDED, b"\x01"),
    Frame(0, 0x124, REMOTE, 3),
    Frame(0, 0x18FEF100, EXTENDED, b""),
]
ROLE = Role(name="one", wording="", can_filters=None)
EXPECTED = {ROLE: ledger.expect(None, FRAMES)}
ADAPTER = {"replayed": len(FRAMES), "overruns": 0}


def _report(frames: list[Frame], *, lost: int = 0, restarts: int = 0) -> dict[str, Report]:
    """What a client says that got these frames."""
    tally = ledger.expect(None, frames)
    return {"one": Report(frames=tally.frames, digest=tally.digest, lost=lost, restarts=restarts)}


def test_ledger_is_exact() -> None:
    assert ledger.faults(len(FRAMES), ADAPTER, EXPECTED, _report(FRAMES)) == []
    assert ledger.lost(EXPECTED, _report(FRAMES)) == 0


@pytest.mark.parametrize(
    ("reports", "fault", "lost"),
    [
        (_report(FRAMES[:-1]), "one got 3 frames instead of 4", 1),
        (_report([*FRAMES, FRAMES[0]]), "one got 5 frames instead of 4", 0),
        (_report(FRAMES[::-1]), "one got other frames, or in another order", 0),
        (_report([*FRAMES[:-1], FRAMES[0]]), "one got other frames, or in another order", 0),
        (_report(FRAMES, lost=2), "one counts 2 frames as lost", 2),
        (_report(FRAMES, restarts=1), "one saw the channel restart 1 times", 0),
    ],
)
def test_ledger_names_what_is_wrong(reports: dict[str, Report], fault: str, lost: int) -> None:
    assert ledger.faults(len(FRAMES), ADAPTER, EXPECTED, reports) == [fault]
    assert ledger.lost(EXPECTED, reports) == lost


def test_ledger_blames_the_adapter() -> None:
    adapter = {"replayed": 3, "overruns": 1}
    (fault,) = ledger.faults(len(FRAMES), adapter, EXPECTED, _report(FRAMES))
    assert "3 of 4" in fault


def test_digest_tells_formats_and_kinds_apart() -> None:
    digests = set()
    for extended, data in ((False, b"\x03"), (True, b"\x03"), (False, 3), (False, b"")):
        tally = Tally()
        tally.add(0x123, extended, data)
        digests.add(tally.digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("can_filters", "passing"),
    [
        (None, [0, 1, 2, 3]),
        ((CanFilter(0x123, 0x7FF),), [0, 1]),
        ((CanFilter(0x123, 0x7FF, False),), [0]),
        ((CanFilter(0x123, 0x7FF, True),), [1]),
        ((CanFilter(0xFF00, 0x00F0),), [3]),
        ((CanFilter(0x124, 0x7FF), CanFilter(0x18000000, 0x1F000000)), [2, 3]),
        ((), [0, 1, 2, 3]),
    ],
)
def test_rule_by_hand(can_filters: tuple[CanFilter, ...] | None, passing: list[int]) -> None:
    found = [
        index
        for index, frame in enumerate(FRAMES)
        if ledger.passes(can_filters, frame.arbitration_id, bool(frame.flags & EXTENDED))
    ]
    assert found == passing


def test_roles_differ_and_each_gets_something() -> None:
    frames = [entry.frame for entry in generate_vehicle(1.5, seed=3)]
    counts = [ledger.expect(role.can_filters, frames).frames for role in cast(frames)]
    assert counts[0] == len(frames)
    assert len(set(counts)) == 5
    assert min(counts) > 0
