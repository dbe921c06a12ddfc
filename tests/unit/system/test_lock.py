"""The lock between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker.system.lock import BrokerLock
from tests.support.systems import posix

#: Takes the lock, or adopts an inherited one; says so, and holds it until told to end.
HOLDER = """
import sys
from pathlib import Path
from canbroker.system.lock import BrokerLock
path = Path(sys.argv[1])
lock = BrokerLock(path, int(sys.argv[2])) if len(sys.argv) > 2 else BrokerLock.take(path)
print("held" if lock else "refused", flush=True)
if sys.stdin.readline() == "release\\n":
    lock.release()
"""


@contextmanager
def holder(path: Path, descriptor: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that tries to hold the lock."""
    inherited = [] if descriptor is None else [descriptor]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *map(str, inherited)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=inherited,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], word: str) -> None:
    process.communicate(word + "\n", timeout=30)


def test_one_holder_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = BrokerLock.take(path)
    assert lock is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert BrokerLock.take(path) is None
    lock.release()
    assert not path.exists()
    again = BrokerLock.take(path)
    assert again is not None
    again.release()


def test_one_holder_of_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as first:
        assert answer(first) == "held"
        assert BrokerLock.take(path) is None
        with holder(path) as second:
            assert answer(second) == "refused"
        end(first, "release")
    assert not path.exists()


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        assert answer(process) == "held"
        process.kill()
        process.wait()
        assert path.exists()
        lock = BrokerLock.take(path)
        assert lock is not None
        lock.release()


@posix("files that are removed while they are open")
def test_a_lock_that_was_removed_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before its holder released it, locked after: two would hold a lock each."""
    path = tmp_path / "lock"
    leaving = BrokerLock.take(path)
    assert leaving is not None
    opened: list[int] = []
    system_open = os.open

    def open_then_release(*arguments: object) -> int:
        descriptor = system_open(*arguments)  # type: ignore[arg-type]  # passed on as they came
        if not opened:
            leaving.release()
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", open_then_release)
    lock = BrokerLock.take(path)
    monkeypatch.undo()
    assert lock is not None
    assert len(opened) == 2  # the first was of a file that is gone
    assert os.path.samestat(os.fstat(lock.descriptor), path.stat())
    assert BrokerLock.take(path) is None
    lock.release()


@posix("locks that children inherit")
def test_an_inherited_lock_is_never_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = BrokerLock.take(path)
    assert lock is not None
    with holder(path, lock.descriptor) as heir:
        lock.hand_over()
        assert answer(heir) == "held"
        assert path.exists()
        assert BrokerLock.take(path) is None
        end(heir, "release")
    assert not path.exists()


def test_a_child_does_not_inherit_the_lock_by_accident(tmp_path: Path) -> None:
    lock = BrokerLock.take(tmp_path / "lock")
    assert lock is not None
    assert not os.get_inheritable(lock.descriptor)
    lock.release()
