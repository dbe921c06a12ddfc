"""Starts a broker in the background, unless one runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.system import handles
from canbroker.system.descriptors import pipe
from canbroker.system.files import close_and_remove, lock_now
from canbroker.system.lock import BrokerLock
from canbroker.system.portable import PORTABLE
from canbroker.system.undisturbed import undisturbed
from canbroker.transport.runtime import Runtime

#: A started broker says this when it serves; any other text is the reason why it does not.
READY: Final = "ready\n"

#: It says this, where it takes the lock itself, if another broker has it.
LOCKED: Final = "locked\n"


def autostart_wanted() -> bool:
    """Whether to start a missing broker: unless ``CANBROKER_AUTOSTART`` is 0."""
    return os.environ.get("CANBROKER_AUTOSTART", "1") != "0"


def is_running(runtime: Runtime) -> bool:
    """Whether there is a broker: a process holds the lock."""
    if not runtime.directory.exists():
        return False
    runtime.prepare()
    found: list[bool] = []
    # A lock lost by a signal handler's exception keeps all others out.
    undisturbed(lambda: found.append(_is_locked(runtime)))
    return any(found)


def _is_locked(runtime: Runtime) -> bool:
    with handles.fork_lock:  # a child would hold the lock for as long as it lives
        lock = BrokerLock.take(runtime.lock_path)
        if lock is not None:
            lock.release()
        return lock is None


def start_if_alone(runtime: Runtime, autostart: bool, options: Sequence[str]) -> None:
    """Starts a broker, if no process holds the lock; returns when it serves, or when another one
    is being started.

    :raises CanInitializationError: it cannot be started, or not ``autostart``.
    """
    if PORTABLE:
        if not _is_locked(runtime):
            if not autostart:
                raise no_broker(runtime)
            _start_portable(runtime, options)
        return
    with handles.fork_lock:  # a child would hold the lock for as long as it lives
        lock = BrokerLock.take(runtime.lock_path)
        if lock is None:
            return
        shield = handles.adopted(lock.descriptor)
    try:
        if not autostart:
            lock.release()
            raise no_broker(runtime)
        _start_broker(runtime, lock, options)
    finally:
        shield.give_up()  # it is closed


def _start_broker(runtime: Runtime, lock: BrokerLock, options: Sequence[str]) -> None:
    """Starts a broker in the background, detached; it inherits the lock.

    Returns when the broker serves. A shell in between makes it an orphan at once, as this process
    would have to wait for a child.

    :raises CanInitializationError: it did not start; the message is the broker's.
    """
    import subprocess  # noqa: PLC0415 - most clients find a broker, and need not pay for this

    try:
        command = _command(runtime, options)
        with handles.fork_lock:  # a child that inherits the other end would keep us waiting
            ready, ready_end = map(handles.adopted, pipe())
    except OSError as error:
        lock.release()
        raise CanInitializationError(
            f"cannot start a broker: {handles.explained(error)}"
        ) from error
    inherited = ("--lock", str(lock.descriptor), "--ready", str(ready_end.fileno()))
    command = ["/bin/sh", "-c", '"$@" &', "sh", *command, *inherited]
    descriptors = (lock.descriptor, ready_end.fileno())
    try:
        # subprocess also reads a pipe whose other end a child would inherit.
        with handles.fork_lock, runtime.log_path.open("wb") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
                check=True,
            )
    except (OSError, subprocess.CalledProcessError) as error:
        ready.close()
        text = handles.explained(error)
        raise CanInitializationError(f"cannot start a broker: {text}") from error
    finally:
        ready_end.close()
        lock.hand_over()
    try:
        with open(ready.fileno(), closefd=False) as answers:
            answer = answers.read()
    finally:
        ready.close()
    _check(answer, runtime)


def _start_portable(runtime: Runtime, options: Sequence[str]) -> None:
    """Starts a broker in the background, which takes the lock itself.

    Returns when the broker serves, or another process is starting one.

    :raises CanInitializationError: it did not start; the message is the broker's.
    """
    import subprocess  # noqa: PLC0415 - as in _start_broker

    from canbroker.system import background  # noqa: PLC0415 - likewise

    path = runtime.starting_path
    try:
        command = _command(runtime, options)
        with handles.fork_lock:  # a child would hold the lock for as long as it lives
            starting = handles.adopted(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if not lock_now(starting.fileno()):  # somebody else starts one
            starting.close()
            return
        try:
            if _is_locked(runtime):  # somebody else has started one just now
                return
            with handles.fork_lock, runtime.log_path.open("wb") as log:
                said = background.start(command, log)
            with said:  # not read to its end: on Windows a program in between has it open, too
                answer = said.readline()
                answer += said.read() if answer != READY else ""
        finally:
            with handles.fork_lock:
                close_and_remove(starting.fileno(), path)
                starting.give_up()
    except (OSError, subprocess.CalledProcessError) as error:
        text = handles.explained(error)
        raise CanInitializationError(f"cannot start a broker: {text}") from error
    if answer != LOCKED:
        _check(answer, runtime)


def _command(runtime: Runtime, options: Sequence[str]) -> list[str]:
    """The command of a broker.

    :raises FileNotFoundError: there is no program to run it.
    """
    from canbroker.system.entry_points import EntryPoint  # noqa: PLC0415 - as in _start_broker

    if not sys.executable:
        raise FileNotFoundError(
            "this Python does not know its own program (sys.executable is empty); "
            "start one with 'canbroker serve'"
        )
    return EntryPoint.BROKER.command("--address", str(runtime.address), *options)


def _check(answer: str, runtime: Runtime) -> None:
    """:raises CanInitializationError: what a broker has said is not that it serves."""
    if answer != READY:
        problem = answer or f"it ended while it started; its log: {runtime.log_path}"
        raise CanInitializationError(f"the broker did not start: {problem}")


def no_broker(runtime: Runtime) -> CanInitializationError:
    allow = "" if autostart_wanted() else ", or allow clients to (CANBROKER_AUTOSTART is 0)"
    return CanInitializationError(
        f"no broker at {runtime.address}; start one with 'canbroker serve'{allow}"
    )
