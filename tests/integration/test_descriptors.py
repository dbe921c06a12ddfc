"""Standard streams that are closed, and the limit of open descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from canbroker import Bus
from canbroker.runtime import BrokerLock, Runtime
from tests.conftest import processes_of, status_of, stop_broker, wait_until

#: Runs its arguments with standard input, output and error closed.
_CLOSED = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")

_CLIENT = """
import time
from canbroker import Bus
with Bus("a", "virtual"):
    time.sleep(1000)
"""


def _is_locked(runtime: Runtime) -> bool:
    lock = BrokerLock.take(runtime.lock_path)
    if lock is not None:
        lock.release()
    return lock is None


def _check_standard(process: psutil.Process) -> None:
    """They may be a log or the null device, but nothing that matters."""
    for number in range(3):
        target = Path(f"/proc/{process.pid}/fd/{number}").readlink()
        assert target.name in {"null", "broker.log"}, f"{process}: {number} is {target}"


def test_a_broker_with_closed_standard_streams_is_the_only_one(runtime: Runtime) -> None:
    command = [*_CLOSED, sys.executable, "-m", "canbroker.cli", "serve"]
    with subprocess.Popen(command) as server:
        try:
            wait_until(lambda: _socket(runtime).exists(), "the broker listens")
            with Bus("a", "virtual"):
                assert status_of(runtime).pid == server.pid
                assert _is_locked(runtime)
                for process in [psutil.Process(server.pid), *processes_of(runtime)]:
                    _check_standard(process)
            assert stop_broker(runtime)
        finally:
            server.kill()


def test_a_client_with_closed_standard_streams_starts_one_broker(runtime: Runtime) -> None:
    command = [*_CLOSED, sys.executable, "-c", _CLIENT]
    with subprocess.Popen(command) as client:
        try:
            wait_until(lambda: _socket(runtime).exists(), "the broker listens")
            with Bus("a", "virtual"):
                assert _is_locked(runtime)
                wait_until(lambda: len(status_of(runtime).channels[0].clients) == 2, "both")
            for process in processes_of(runtime):
                _check_standard(process)
            brokers = [p for p in processes_of(runtime) if "canbroker.broker" in p.cmdline()]
            assert len(brokers) == 1
        finally:
            client.kill()


def _socket(runtime: Runtime) -> Path:
    return runtime.directory / "broker"


def test_the_lock_is_none_of_the_standard_streams(tmp_path: Path) -> None:
    standard = [os.dup(number) for number in range(3)]
    try:
        for number in range(3):
            os.close(number)
        lock = BrokerLock.take(tmp_path / "lock")
    finally:
        for number, copy in enumerate(standard):
            os.dup2(copy, number)
            os.close(copy)
    assert lock is not None
    assert lock.descriptor > 2
    lock.release()
