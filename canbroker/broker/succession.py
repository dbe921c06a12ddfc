"""What a broker leaves to its successor in case it is killed: processes and sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from canbroker.broker import handover
from canbroker.broker.supervisor import ActorSlot
from canbroker.system.endpoint_files import KEY_FILE
from canbroker.system.endpoints import is_endpoint, retire
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.place import RING_SUFFIX
from canbroker.transport.runtime import Runtime

#: Actors leave by themselves when their broker dies; they may take this long.
_LEAVE_S: Final = 1.5

#: A process that started this much before or after it was recorded is another one.
_SAME_START_S: Final = 5

_logger = logging.getLogger(__name__)


class _Started(msgspec.Struct):
    pid: int
    at: float  # wall clock, seconds


class Succession:
    """Records the processes that this broker starts; ends those of a killed predecessor."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._started: dict[int, _Started] = {}

    def record(self, slots: Iterable[ActorSlot], *, anew: bool = False) -> None:
        """Writes down which processes run now, for our successor.

        Only if they have changed, or ``anew``, because the file was removed.
        """
        now = time.time()
        pids = {slot.child.pid for slot in slots if slot.child is not None}
        if pids == self._started.keys() and not anew:
            return
        self._started = {pid: self._started.get(pid, _Started(pid, now)) for pid in pids}
        handover.write(self._runtime.processes_path, list(self._started.values()))

    def clear(self) -> None:
        """Ends the processes that a killed predecessor has left, and removes their sockets.

        Its records of channels and tasks stay. Call it with the lock; it waits for a few seconds
        at most.
        """
        started = handover.read(self._runtime.processes_path, _Started)
        if started:
            _end_processes(started)
        for path in self._runtime.directory.iterdir():
            if path.suffix == RING_SUFFIX:
                path.unlink(missing_ok=True)
            elif is_endpoint(path):
                retire(path)

    def remove_files(self) -> None:
        """Removes the records and every socket: they belong to whoever holds the lock."""
        runtime = self._runtime
        paths = (runtime.processes_path, runtime.channels_path, runtime.recordings_path)
        records = {path.name for path in paths}
        for path in self._runtime.directory.iterdir():
            journal = path.name.startswith(self._runtime.journal_path.name)
            is_socket = is_endpoint(path) or path.name == KEY_FILE or path.suffix == RING_SUFFIX
            if is_socket or journal or path.stem in records:  # a new record has a suffix
                path.unlink(missing_ok=True)


def _end_processes(started: list[_Started]) -> None:
    import psutil  # noqa: PLC0415 - costs more than all else at start, and is rarely needed

    left = []
    for entry in started:
        try:
            process = psutil.Process(entry.pid)
            # The process id may belong to another process by now.
            is_actor = EntryPoint.ACTOR.is_in(process.cmdline())
            if is_actor and abs(process.create_time() - entry.at) < _SAME_START_S:
                left.append(process)
        except psutil.NoSuchProcess:
            continue
    _, hung = psutil.wait_procs(left, timeout=_LEAVE_S)
    for process in hung:
        _logger.warning("killing process %d of a broker that is gone", process.pid)
        process.kill()
    psutil.wait_procs(hung, timeout=_LEAVE_S)
