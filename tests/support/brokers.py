"""Brokers of tests: each in a runtime directory of its own, which must be empty in the end."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from canbroker.bus import discovery
from canbroker.system.entry_points import EntryPoint
from canbroker.system.lock import BrokerLock
from canbroker.transport.calls import NoAnswerError
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import Context
from canbroker.view.tasks import running_tasks
from canbroker.wire import control
from canbroker.wire.status import BrokerStatus
from canbroker.wire.tasks import TaskStatus


def processes_of(runtime: Runtime) -> list[psutil.Process]:
    """Every canbroker process, anybody's child, that belongs to this runtime directory."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        ours = environment.get("XDG_RUNTIME_DIR") == str(runtime.directory.parent)
        if ours and (EntryPoint.BROKER.is_in(command) or EntryPoint.ACTOR.is_in(command)):
            found.append(process)
    return found


def stop_broker(runtime: Runtime, timeout: float = 10.0) -> bool:
    """Stops the broker of ``runtime``, if there is one; returns whether there was."""
    if not runtime.directory.exists():
        return False
    lock = BrokerLock.take(runtime.lock_path)
    if lock is not None:
        lock.release()
        return False
    context = Context()
    try:
        with suppress(NoAnswerError):  # it may be leaving already: the lock tells
            discovery.ask(context, runtime, "shutdown", control.Params(), control.Nothing, timeout)
    finally:
        context.close()
    deadline = time.monotonic() + timeout
    while (lock := BrokerLock.take(runtime.lock_path)) is None:
        assert time.monotonic() < deadline, f"broker at {runtime.address} does not stop"
        threading.Event().wait(0.01)
    lock.release()
    return True


@contextmanager
def private_runtime() -> Iterator[Runtime]:
    """A private runtime directory, the default one of this process and its children.

    At the end its broker is stopped, and must leave no process, socket or lock.
    """
    # Not tmp_path: the paths of Unix sockets are short.
    directory = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        patch.setenv("PYTHONWARNINGS", "error::ResourceWarning")
        yield from _runtime_in(directory)


def _runtime_in(directory: Path) -> Iterator[Runtime]:
    runtime = Runtime.at()
    try:
        yield runtime
        stop_broker(runtime)
        # The broker gives up its lock a moment before its process ends.
        wait_until(lambda: not processes_of(runtime), "every process of the broker ends")
        if runtime.directory.exists():
            kept = {"broker.log", "broker.log.1", "records", "audit.log"}
            files = {path.name for path in runtime.directory.iterdir()} - kept
            assert not files, f"left behind: {files}"
            if runtime.records_path.exists():
                unfinished = list(runtime.records_path.glob("*.part"))
                assert not unfinished, f"left behind: {unfinished}"
    finally:
        for process in processes_of(runtime):
            process.kill()
        log = runtime.log_path
        if log.exists():
            print(log.read_text())  # noqa: T201 - pytest shows it when the test fails
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Waits until ``condition()`` is true; fails naming ``what`` if that does not happen."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not happen in {timeout} s: {what}"
        threading.Event().wait(0.005)


def status_of(runtime: Runtime) -> BrokerStatus:
    """What the broker says of itself and its channels."""
    context = Context()
    try:
        return discovery.ask(context, runtime, "status", control.Params(), BrokerStatus, 10.0)
    finally:
        context.close()


def tasks_of(runtime: Runtime) -> list[TaskStatus]:
    """The periodic tasks that run."""
    context = Context()
    try:
        return running_tasks(status_of(runtime), (), context)
    finally:
        context.close()
