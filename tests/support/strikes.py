"""Exceptions that a signal handler raises, wherever they strike."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sys import setprofile
from types import FrameType
from typing import TypeVar

from tests.support.systems import skip_on_windows

_T = TypeVar("_T")

# Another process: a timer of ours would be the one that limits the time of a test.
_STRIKER = """
import os, signal, sys, time
while os.getppid() == int(sys.argv[1]):
    os.kill(int(sys.argv[1]), signal.SIGUSR1)
    time.sleep(0.0002)
"""


class StrikeError(Exception):
    """Raised by the handler."""


class Strikes:
    """Raises in what :meth:`run` runs, at times that nobody chose. Main thread only."""

    def __init__(self) -> None:
        self.count = 0
        self._armed = False

    def run(self, job: Callable[[], _T]) -> _T | None:
        """What ``job`` returns; ``None`` if it was struck."""
        try:
            self._armed = True
            result = job()
            self._armed = False
        except StrikeError:
            self.count += 1
            return None
        finally:
            self._armed = False
        return result

    def strike(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise StrikeError


@contextmanager
def strikes() -> Iterator[Strikes]:
    """Strikes while the block runs, some thousand times a second.

    Without automatic garbage collection, and without a report of a strike that hits a finalizer
    or a callback of a weak reference: Python passes what is raised there to nobody.
    """
    skip_on_windows("signals from another process")
    made = Strikes()
    with _rarely_unraisable():
        before = signal.signal(signal.SIGUSR1, made.strike)
        try:
            with subprocess.Popen([sys.executable, "-c", _STRIKER, str(os.getpid())]) as striker:
                try:
                    yield made
                finally:
                    striker.kill()
        finally:
            signal.signal(signal.SIGUSR1, before)


@contextmanager
def unreported() -> Iterator[None]:
    """A strike that Python cannot pass on, as in a finalizer, is not reported; all else is."""
    report = sys.unraisablehook

    def hear(told: sys.UnraisableHookArgs) -> None:
        if not isinstance(told.exc_value, StrikeError):
            report(told)

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = report


@contextmanager
def _rarely_unraisable() -> Iterator[None]:
    """As :func:`unreported`, without automatic garbage collection."""
    gc.disable()
    try:
        with unreported():
            yield
    finally:
        gc.enable()


def struck(strike: int | None, job: Callable[[], object]) -> bool:
    """Does ``job``; an exception strikes at that call in it, if there are so many.

    Where a handler of signals may raise: when a function is entered, and after calls of C.
    """
    left = -1 if strike is None else strike

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal left
        if event in {"call", "c_return"}:
            left -= 1
            if left == -1:
                raise StrikeError

    with _rarely_unraisable():
        try:
            if strike is not None:
                setprofile(profile)
            job()
        except StrikeError:
            return True
        finally:
            setprofile(None)
    return False


def calls_in(job: Callable[[], object]) -> int:
    """How often an exception may strike ``job``, at most."""
    count = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_return"}

    setprofile(profile)
    try:
        job()
    finally:
        setprofile(None)
    return count
