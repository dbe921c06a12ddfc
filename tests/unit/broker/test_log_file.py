"""A log that has become too large, and records of drivers that log too much."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from canbroker.broker import log_file
from canbroker.system import clock
from canbroker.system.throttle import ForeignRecords

#: Logs to standard error, as its child does, before and after the log began anew.
_PROGRAM = """
import subprocess, sys
from pathlib import Path
from canbroker.broker import log_file

log_file.MAX_BYTES = 1000
log = log_file.LogFile(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", '''
import sys
for line in sys.stdin:
    sys.stderr.write(line)
    sys.stderr.flush()
    print("written", flush=True)
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def write(line):
    child.stdin.write(line + "\\n")
    child.stdin.flush()
    child.stdout.readline()

sys.stderr.write("ours\\n")
write("x" * 500)
log.step()  # not yet
write("y" * 500)
log.step()
write("later")
sys.stderr.write("ours again\\n")
sys.stderr.flush()
log.step()
child.stdin.close()
child.wait()
"""


def test_a_log_begins_anew_under_all_that_write_to_it(tmp_path: Path) -> None:
    path = tmp_path / "broker.log"
    with path.open("wb") as log:
        subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], stderr=log, check=True)
    assert path.read_text() == "later\nours again\n"
    assert (tmp_path / "broker.log.1").read_text() == f"ours\n{'x' * 500}\n{'y' * 500}\n"


def test_a_log_that_cannot_be_kept_begins_anew_all_the_same(tmp_path: Path) -> None:
    """A full disk, most likely; here a directory is in the way."""
    path = tmp_path / "broker.log"
    (tmp_path / "broker.log.1").mkdir()
    with path.open("wb") as log:
        subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], stderr=log, check=True)
    first, *others = path.read_text().splitlines()
    assert first.startswith("the log before this line is lost: ")
    assert others == ["later", "ours again"]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "broker.log", tmp_path / "mine.log"
    path.write_text("old")
    with other.open("wb") as log:
        subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], stderr=log, check=True)
    assert path.read_text() == "old"
    assert "x" * 500 in other.read_text()
    assert not log_file.LogFile(path).old.exists()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time, which the test sets."""
    time = [0]
    monkeypatch.setattr(clock, "monotonic_ns", lambda: time[0])
    return time


def record(name: str, text: str, line: int = 1) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "driver.py", line, text, (), None)


def test_records_of_one_place_are_counted_beyond_a_few(now: list[int]) -> None:
    throttle = ForeignRecords(records=2, interval_s=1)
    passed = [throttle.filter(record("can.pcan", f"heavy {number}")) for number in range(10)]
    assert passed == [True, True] + [False] * 8
    assert throttle.filter(record("can.pcan", "something else", line=2))
    now[0] = clock.SECOND
    later = record("can.pcan", "heavy 10")
    assert throttle.filter(later)
    assert later.getMessage() == "heavy 10 (and 8 more of that kind)"
    last = record("can.pcan", "heavy 11")
    assert throttle.filter(last)
    assert last.getMessage() == "heavy 11"


@pytest.mark.parametrize("name", ["canbroker.python_can", "canbroker", "__main__"])
def test_our_own_records_are_all_passed(now: list[int], name: str) -> None:
    throttle = ForeignRecords(records=1)
    assert all(throttle.filter(record(name, "lost its adapter")) for _ in range(10))
