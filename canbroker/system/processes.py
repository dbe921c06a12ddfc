"""Whether a process still runs, and whether it is still the same one."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from canbroker.system import clock
from canbroker.system.portable import PORTABLE
from canbroker.system.wake import Wake

#: How often processes are looked at where the system does not report their ends; less often if that
#: takes more than a fiftieth of the time.
_LOOK_S: Final = 0.1
_SHARE: Final = 50

#: psutil computes the start from the clock that can be set, on all systems but Windows.
_TOLERANCE: Final = 2_000 if PORTABLE and sys.platform != "win32" else 0


class Process(NamedTuple):
    """A process, for ever: numbers are given again, but not with the same start."""

    pid: int
    started: int  # as start_of() says

    @property
    def runs(self) -> bool:
        return same_start(start_of(self.pid), self.started)


def same_start(one: int | None, other: int | None) -> bool:
    """Whether two results of :func:`start_of` for one number are of one process, which exists."""
    return one is not None and other is not None and abs(one - other) <= _TOLERANCE


def apart() -> dict[str, Any]:
    """Arguments of :class:`subprocess.Popen` for a child that Ctrl-C in our terminal does not
    reach, and that opens no window."""
    if sys.platform == "win32":
        import subprocess  # noqa: PLC0415 - most clients start nothing

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


class ProcessEnd(Protocol):
    """Readable when a process has ended."""

    def fileno(self) -> int: ...

    def close(self) -> None:
        """Idempotent."""


if sys.platform == "linux" and not PORTABLE:

    def is_alive(pid: int) -> bool:
        """Whether a process with this number runs. Zombies have ended; 0 is none."""
        if not pid:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, about whom the system may tell nothing else
            return True
        return start_of(pid) is not None

    def start_of(pid: int) -> int | None:
        """When the process with this number started, on a clock that nobody can set.

        Number and start together identify a process until the host restarts. ``None``: it does not
        exist, or is a zombie. Linux: clock ticks since boot (proc_pid_stat(5)); elsewhere
        milliseconds. See :func:`same_start`.
        """
        try:
            # The program's name stands in brackets before these fields and may contain anything.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in {b"Z", b"X"} else int(fields[19])

    def end_of(pid: int) -> ProcessEnd | None:
        """What becomes readable when the process ends; the caller closes it.

        ``None``: the process has ended, or no descriptor is left. :func:`start_of` tells which.
        """
        try:
            return _Descriptor(os.pidfd_open(pid))
        except OSError:
            return None

    class _Descriptor:
        """A descriptor of a process."""

        def __init__(self, number: int) -> None:
            self._number = number

        def fileno(self) -> int:
            return self._number

        def close(self) -> None:
            if self._number >= 0:
                os.close(self._number)
                self._number = -1

else:

    def is_alive(pid: int) -> bool:
        """As on Linux.

        Not by signal 0, which is Ctrl-C on Windows.
        """
        return pid > 0 and start_of(pid) is not None

    def start_of(pid: int) -> int | None:
        """As on Linux, in milliseconds since 1970."""
        import psutil  # noqa: PLC0415 - slow to import, and Linux does not need it

        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return int(process.create_time() * 1000)
        except psutil.NoSuchProcess:
            return None

    def end_of(pid: int) -> ProcessEnd | None:
        """As on Linux."""
        started = start_of(pid)
        if started is None:
            return None
        end = _Watched(Process(pid, started))
        _watcher.add(end)
        return end

    class _Watched:
        """A process that :class:`_Watcher` looks at."""

        def __init__(self, process: Process) -> None:
            self.process = process
            self.wake = Wake()

        def fileno(self) -> int:
            return self.wake.fileno()

        def close(self) -> None:
            _watcher.discard(self)
            self.wake.close()

    class _Watcher:
        """Looks at processes, all on one thread, which runs while there are some."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._watched: set[_Watched] = set()
            self._running = False

        def add(self, watched: _Watched) -> None:
            with self._lock:
                self._watched.add(watched)
                if not self._running:
                    self._running = True
                    threading.Thread(target=self._run, name="process ends", daemon=True).start()

        def discard(self, watched: _Watched) -> None:
            with self._lock:
                self._watched.discard(watched)

        def _run(self) -> None:
            pause = threading.Event()
            while True:
                began_ns = clock.monotonic_ns()
                with self._lock:
                    watched = list(self._watched)
                    self._running = bool(watched)
                if not watched:
                    return
                for each in watched:
                    if not each.process.runs:
                        each.wake.set()
                        self.discard(each)
                took_s = (clock.monotonic_ns() - began_ns) / clock.SECOND
                pause.wait(max(_LOOK_S, took_s * _SHARE))

    _watcher: Final = _Watcher()
