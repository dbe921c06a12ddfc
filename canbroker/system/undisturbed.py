"""Jobs that a signal handler must not cut short, such as clean-up."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Final

#: The caller waits for a job this many seconds; after that the job ends on its own. The caller may
#: be a signal handler, and the job may need a lock that the interrupted code holds.
_PATIENCE_S: Final = 5.0


def undisturbed(job: Callable[[], object], patience_s: float = _PATIENCE_S) -> None:
    """Runs ``job`` to its end on a thread of its own: signal handlers run on the main thread only.

    An exception of a handler goes through when the job is done. An exception of the job is raised
    here. Threads other than the main one run the job themselves.

    :param patience_s: after this time the job goes on, and the caller does not wait any longer.
    """
    if threading.current_thread() is not threading.main_thread():
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


def in_background(job: Callable[[], None], name: str) -> Callable[[], None]:
    """Begins ``job`` on a thread of its own; returns a function that waits for its end.

    If no thread can be started, as at the end of the interpreter, the job is done on return.
    """
    work = _Work(job)
    if not work.begin(name):
        work.run()
    return lambda: work.wait(_PATIENCE_S)


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
