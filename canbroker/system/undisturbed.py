"""Jobs that no signal handler may cut short: clean-up, and what would be lost half done."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Final

#: Seconds that a job is waited for. Then it ends by itself: it may need what its caller has, who
#: may be a signal handler that has interrupted anything.
_PATIENCE_S: Final = 5.0


def undisturbed(job: Callable[[], object], patience_s: float = _PATIENCE_S) -> None:
    """Runs ``job`` to its end on a thread of its own: signal handlers run on the main thread only.

    What a handler raises meanwhile goes through when the job is done. What the job raises is
    raised here. Other threads than the main one run it themselves.

    :param patience_s: after that it goes on without being waited for.
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
    """Begins ``job`` on a thread of its own; returns what waits for its end.

    Where no thread can be had, as at the end of the interpreter, it is done on return.
    """
    work = _Work(job)
    if not work.begin(name):
        work.run()
    return lambda: work.wait(_PATIENCE_S)


class _Work:
    """A job, and the thread that does it."""

    def __init__(self, job: Callable[[], object]) -> None:
        self.errors: list[BaseException] = []
        self._ended: list[bool] = []
        self.begun: list[int] = []
        self._job = job
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def begin(self, name: str) -> bool:
        """Whether a thread does it. If a handler raises in here, :attr:`begun` tells."""
        thread = threading.Thread(target=self.run, name=name, daemon=True)
        # Thread.start() waits, and leaves traces when it is interrupted. So another thread calls
        # it. To start that one and to note that it was is one call.
        try:
            self.begun.extend(map(_thread.start_new_thread, (self._launch,), ((thread,),)))
        except RuntimeError as error:
            if "thread" not in str(error):  # a handler's
                raise
        return bool(self.begun)

    def run(self) -> None:
        try:
            self._job()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.errors.append(error)
        finally:
            self._ended.append(True)
            self._done.release()

    def wait(self, timeout: float) -> None:
        """Waits for the end; any number of times."""
        if not self._ended and self._done.acquire(timeout=timeout):
            self._done.release()

    def _launch(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except BaseException:  # noqa: BLE001 - there was room for one thread, say, and not for two
            self.run()
