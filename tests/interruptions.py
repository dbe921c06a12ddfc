"""What is left when an exception has struck an operation of a client: nothing.

    python -m tests.interruptions --count 200

interrupts so many opens, shutdowns and so on with signals at random times, and fails if one hangs,
leaves a descriptor or a thread behind, or loses the handler's exception.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from canbroker import Bus, CanError, Message, Notifier
from tests.support.brokers import private_runtime
from tests.support.strikes import StrikeError, unreported
from tests.support.systems import open_descriptors

#: Seconds. What is interrupted ends within milliseconds; a busy machine may take longer.
PATIENCE_S: Final = 10.0


class Operation:
    """Something that may be interrupted. ``prepare`` makes what ``do`` needs, ``undo`` ends it."""

    def prepare(self) -> None: ...

    def do(self) -> None: ...

    def undo(self) -> None: ...


class Opening(Operation):
    def __init__(self) -> None:
        self.bus: Bus | None = None

    def do(self) -> None:
        self.bus = Bus("x", "virtual")

    def undo(self) -> None:
        if self.bus is not None:
            self.bus.shutdown()
            self.bus = None


class Shutdown(Opening):
    """With frames on their way and a periodic task. What it leaves, nobody ends."""

    def prepare(self) -> None:
        self.bus = Bus("x", "virtual")
        self.bus.send_periodic(Message(arbitration_id=2), 10.0)
        self.bus.send_batch([Message(arbitration_id=1)] * 100)

    def do(self) -> None:
        assert self.bus is not None
        self.bus.shutdown()

    def undo(self) -> None:
        self.bus = None


class Forgetting(Shutdown):
    """Its finalizer runs; what strikes in there, Python reports to nobody who could catch it."""

    def do(self) -> None:
        self.bus = None
        gc.collect()


class Notifying(Opening):
    def __init__(self) -> None:
        super().__init__()
        self.notifier: Notifier | None = None

    def prepare(self) -> None:
        self.bus = Bus("x", "virtual")

    def do(self) -> None:
        self.notifier = Notifier(self.bus, [lambda _: None])  # type: ignore[arg-type] # is a bus

    def undo(self) -> None:
        if self.notifier is not None:
            self.notifier.stop()
            self.notifier = None
        super().undo()


class Stopping(Notifying):
    def prepare(self) -> None:
        super().prepare()
        super().do()

    def do(self) -> None:
        assert self.notifier is not None
        self.notifier.stop()


class Filtering(Shutdown):
    def do(self) -> None:
        assert self.bus is not None
        self.bus.set_filters([{"can_id": random.randrange(0x800), "can_mask": 0x7FF}])

    def undo(self) -> None:
        assert self.bus is not None
        self.bus.set_filters(None)
        Opening.undo(self)


class Scheduling(Filtering):
    def do(self) -> None:
        assert self.bus is not None
        self.bus.send_periodic(Message(arbitration_id=3), 10.0)
        self.bus.send_periodic(Message(arbitration_id=4), 10.0, modifier_callback=lambda _: None)

    def undo(self) -> None:
        Opening.undo(self)


OPERATIONS: Final[dict[str, Callable[[], Operation]]] = {
    "open": Opening,
    "shutdown": Shutdown,
    "collect": Forgetting,
    "notify": Notifying,
    "stop": Stopping,
    "filter": Filtering,
    "schedule": Scheduling,
}


def resources() -> tuple[int, int, int]:
    """Descriptors, threads of the system, and threads that Python knows."""
    return (
        len(open_descriptors()),
        len(list(Path("/proc/self/task").iterdir())),
        len(threading.enumerate()),
    )


def resources_at_rest() -> tuple[int, int, int]:
    """Of a process whose one bus has been opened, when the threads that helped have ended."""
    deadline = time.monotonic() + PATIENCE_S
    while len(threading.enumerate()) > 1:
        assert time.monotonic() < deadline, f"threads: {threading.enumerate()}"
        time.sleep(0.005)
    seen = [resources()]
    while len(set(seen[-20:])) > 1 or len(seen) < 20:  # libzmq closes what we have closed later
        time.sleep(0.01)
        seen.append(resources())
    return seen[-1]


def interrupt(operation: Operation, strike: Callable[[Callable[[], None]], object]) -> None:
    """Has ``strike`` interrupt the operation; nothing may be left of it, nor take long."""
    operation.prepare()
    began = time.monotonic()
    strike(operation.do)
    took = time.monotonic() - began
    with suppress(CanError):  # what was interrupted may not have been sent
        operation.undo()
    assert took < PATIENCE_S, f"it has taken {took:.1f} s"


def assert_as_before(before: tuple[int, int, int], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (now := resources()) != before:
        assert time.monotonic() < deadline, (
            f"{what}: {now} instead of {before}; open: {open_descriptors()}"
        )
        gc.collect()
        time.sleep(0.005)


# ----------------------------------------------------------------------------- with real signals

_STRIKER = """
import os, signal, sys, time
for line in sys.stdin:
    time.sleep(float(line))
    os.kill(int(sys.argv[1]), signal.SIGUSR1)
    print(flush=True)
"""


class _Signals:
    """Strikes once, some time after the job has begun."""

    def __init__(self, striker: subprocess.Popen[str]) -> None:
        self.hits = 0
        self.longest_s = 0.002
        self._striker = striker
        self._armed = False

    def __call__(self, job: Callable[[], None]) -> None:
        assert self._striker.stdin is not None
        assert self._striker.stdout is not None
        print(random.uniform(0, self.longest_s), file=self._striker.stdin, flush=True)
        struck = False
        began = time.monotonic()
        try:
            self._armed = True
            job()
            self._armed = False
        except StrikeError:
            struck = True
        if not struck:
            self.longest_s = 1.2 * (time.monotonic() - began)
        self._striker.stdout.readline()
        self.hits += struck

    def handle(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise StrikeError


@contextmanager
def _signals() -> Iterator[_Signals]:
    command = [sys.executable, "-c", _STRIKER, str(os.getpid())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as striker:
        signals = _Signals(striker)
        before = signal.signal(signal.SIGUSR1, signals.handle)
        try:
            yield signals
        finally:
            striker.kill()
            signal.signal(signal.SIGUSR1, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    warnings.simplefilter("ignore", ResourceWarning)
    with private_runtime(), Bus("x", "virtual"), unreported():
        for name, make in OPERATIONS.items():
            with _signals() as signals:
                faulthandler.dump_traceback_later(3 * PATIENCE_S, exit=True)  # has a thread
                before = resources_at_rest()
                tries = 0
                while signals.hits < count and tries < (1 if name == "collect" else 5) * count:
                    tries += 1
                    faulthandler.dump_traceback_later(3 * PATIENCE_S, exit=True)
                    interrupt(make(), signals)
                    assert_as_before(before, f"{name} number {tries}")
                faulthandler.cancel_dump_traceback_later()
                print(f"{name}: interrupted {signals.hits} of {tries}, nothing left", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
