"""The one mechanism by which an exception may strike anywhere and leaves nothing half done.

A signal handler may raise (Ctrl-C, a test's time limit) wherever CPython looks for signals: when a
function is entered, when a function of C has returned, when a loop starts again, and in system
calls that wait. It looks on the main thread only. Programs go on after such an exception, so a bus
must neither leak nor hang nor lose count. Code is written as if nothing ever struck, except for
these four rules, each with one place that implements it:

- **Owned.** Everything that is opened has an owner that finds it even if the exception struck
  before the opener could store it: a bus has its ``Life`` (:mod:`canbroker.bus.life`), a descriptor
  its :class:`~canbroker.system.handles.Handle`, a socket its ``SharedContext``.
- **Undisturbed.** A job that must not stop half-way runs on another thread: :func:`undisturbed`,
  and :func:`in_background` for finalizers. One whose start may be struck is called by
  :func:`to_the_end`.
- **In turn.** Locks are freed by C code (:mod:`canbroker.system.locks`), the right to use a socket
  by a :class:`~canbroker.bus.turns.Turn`. ``threading.Event`` and ``Condition`` keep a lock taken
  when they are struck, so flags are plain attributes, and waits are on a ``Wake``.
- **At once.** Values that belong together are assigned in statements without a call, where nothing
  can strike. Those places say "at once".
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from canbroker.system import handles, locks

#: Seconds to wait for a job. After that it ends by itself: it may need a lock of its caller, which
#: may be a signal handler that has interrupted anything.
_PATIENCE_S: Final = 5.0

_T = TypeVar("_T")


def undisturbed(job: Callable[[], object], patience_s: float = _PATIENCE_S) -> None:
    """Runs ``job`` to its end on another thread, as signal handlers run on the main thread only.

    An exception that a handler raises meanwhile passes through when the job is done. An exception
    of the job is raised here. Threads other than the main one run the job themselves, and so does
    one that holds :data:`~canbroker.system.handles.fork_lock`, which the job may need.

    :param patience_s: seconds to wait. After that the job continues on its own.
    """
    if threading.current_thread() is not threading.main_thread() or locks.is_held(
        handles.fork_lock
    ):
        job()
        return
    work = _Work(job)
    try:
        if not work.begin("canbroker-cleanup"):
            job()
            return
        work.wait(patience_s)
    except BaseException:
        if work.begun:
            work.wait(_PATIENCE_S)
        raise
    if work.errors:
        raise work.errors[0]


def to_the_end(job: Callable[[], _T]) -> _T:
    """What ``job`` returns, which is called again in case an exception has ended it.

    :param job: does what is left to do, and nothing if that is nothing.
    """
    try:
        return job()
    finally:
        job()


def in_background(job: Callable[[], None], name: str) -> Callable[[], None]:
    """Begins ``job`` on a thread of its own; returns a function that waits for its end.

    If no thread can be started, as at the end of the interpreter, the job is done on return.
    """
    work = _Work(job)
    if not work.begin(name):
        work.run()
    return lambda: work.wait(_PATIENCE_S)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Keeps signals from the calling thread. Where it cannot (Windows), no signal gets there: the
    main thread alone handles them, and no call of another thread is interrupted."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Work:
    """A job, and the thread that runs it."""

    def __init__(self, job: Callable[[], object]) -> None:
        self.errors: list[BaseException] = []
        self._ended: list[bool] = []
        self.begun: list[int] = []
        self._job = job
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def begin(self, name: str) -> bool:
        """Starts the thread; returns whether that worked. If a handler raises in here, see
        :attr:`begun`."""
        thread = threading.Thread(target=self.run, name=name, daemon=True)
        # Thread.start() waits, and leaves traces when it is interrupted. So another thread calls
        # it. One call starts that thread and notes that it has started.
        try:
            self.begun.extend(map(_thread.start_new_thread, (self._launch,), ((thread,),)))
        except RuntimeError as error:
            if "thread" not in str(error):  # the exception is a handler's
                raise
        return bool(self.begun)

    def run(self) -> None:
        try:
            self._job()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self.errors.append(error)
        finally:
            self._ended.append(True)
            self._done.release()

    def wait(self, timeout: float) -> None:
        """Waits for the end. May be called any number of times."""
        if not self._ended and self._done.acquire(timeout=timeout):
            self._done.release()

    def _launch(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException:  # noqa: BLE001 - the system may allow one more thread, but not two
            self.run()
