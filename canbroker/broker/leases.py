"""Leases: a process has a channel of a pool for a while, or waits for one.

Leases survive a broker that is killed: its successor reads them from a file in the runtime
directory. Processes are identified by process id and start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from canbroker.broker import handover
from canbroker.system import clock
from canbroker.system.processes import end_of, start_of
from canbroker.transport.replier import Caller, Handler
from canbroker.transport.waiter import Waiter
from canbroker.wire import control

#: The most requests that wait for a channel.
MAX_WAITING: Final = 1024


class _Process(NamedTuple):
    """A process: its id may be used again, but not with the same start."""

    pid: int
    started: int

    @property
    def runs(self) -> bool:
        return start_of(self.pid) == self.started


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease, as it is written to the file."""

    channel: str
    pool: str
    lease_id: str
    pid: int
    started: int
    program: str
    since_ns: int  # wall clock

    @property
    def process(self) -> _Process:
        return _Process(self.pid, self.started)


@dataclass(frozen=True)
class _Waiting:
    caller: Caller
    request: control.TakeLease
    until_ns: int | None  # monotonic
    since_ns: int  # wall clock

    @property
    def process(self) -> _Process:
        return _Process(self.request.pid, self.request.started)


class Leases:
    """All leases of a broker; serves their methods. Used by the broker's one thread."""

    def __init__(
        self,
        path: Path,
        pools: Mapping[str, Sequence[str]],
        waiter: Waiter,
        reply: Callable[[Caller, msgspec.Struct], None],
        is_up: Callable[[str], bool],
    ) -> None:
        """Takes over the leases that a killed predecessor has written to ``path``.

        :param pools: names of the channels of each pool.
        :param waiter: watches processes; :meth:`step` needs what it finds readable.
        :param reply: answers a request.
        :param is_up: whether a channel works; channels that do not are leased last.
        """
        self.pools = pools
        self.handlers: Mapping[str, Handler] = {"lease": self._lease, "release": self._release}
        self._path = path
        self._waiter = waiter
        self._reply = reply
        self._is_up = is_up
        self._waiting: dict[str, _Waiting] = {}  # by lease id, in order of arrival
        self._watched: dict[_Process, int | None] = {}
        # Also of channels that are in no pool now: the next configuration may have them in one.
        self._held = {
            held.channel: held for held in handover.read(path, _Lease) if held.process.runs
        }
        self._grant()

    def __repr__(self) -> str:
        return f"<Leases held={len(self._held)} waiting={len(self._waiting)}>"

    @property
    def busy(self) -> bool:
        """Whether anybody has a lease, or waits for one."""
        return bool(self._held or self._waiting)

    @property
    def due_ns(self) -> int | None:
        """Monotonic time at which the next request times out, ``None`` if none does."""
        ends = (waiting.until_ns for waiting in self._waiting.values())
        return min((end for end in ends if end is not None), default=None)

    def step(self, ready: set[object]) -> None:
        """Takes leases back from processes that have ended, and grants free channels.

        :param ready: what the waiter has found readable.
        """
        ended = {
            process
            for process, descriptor in self._watched.items()
            if (descriptor in ready if descriptor is not None else not process.runs)
        }
        if ended:
            self._take_back(held for held in self._held.values() if held.process in ended)
            for lease_id, waiting in list(self._waiting.items()):
                if waiting.process in ended:
                    del self._waiting[lease_id]
        self._grant()

    def status(self) -> list[control.LeaseStatus]:
        """All leases, then all requests that wait, in order of arrival."""
        now = clock.wall_ns()
        return [
            control.LeaseStatus(
                lease_id=held.lease_id,
                pool=held.pool,
                channel=held.channel,
                pid=held.pid,
                program=held.program,
                since_s=max(0, now - held.since_ns) / clock.SECOND,
            )
            for held in self._held.values()
        ] + [
            control.LeaseStatus(
                lease_id=lease_id,
                pool=waiting.request.pool,
                channel=None,
                pid=waiting.request.pid,
                program=waiting.request.program,
                since_s=max(0, now - waiting.since_ns) / clock.SECOND,
            )
            for lease_id, waiting in self._waiting.items()
        ]

    def close(self, reason: str) -> None:
        """Ends all leases and requests, because the broker ends in order."""
        for waiting in self._waiting.values():
            self._reply(waiting.caller, control.ErrorResult("shutting-down", reason))
        self._waiting.clear()
        self._held.clear()
        self._watch()
        self.record()

    # -------------------------------------------------------------------------------- methods

    def _lease(self, caller: Caller, request: control.TakeLease) -> msgspec.Struct | None:
        """Grants a lease now or later. A process that has it already, or waits, may ask again."""
        if request.pool not in self.pools:
            known = ", ".join(map(repr, self.pools)) or "none"
            unknown = f"no pool {request.pool!r}; pools of this broker: {known}"
            return control.ErrorResult("initialization", unknown)
        for held in self._held.values():
            if held.lease_id == request.lease_id:
                return control.Leased(channel=held.channel)
        before = self._waiting.get(request.lease_id)
        if before is None and len(self._waiting) >= MAX_WAITING:
            return control.ErrorResult("limit", f"{MAX_WAITING:,} wait for channels already")
        until_ns = None
        if request.timeout_ns is not None:
            until_ns = clock.monotonic_ns() + request.timeout_ns
        since_ns = clock.wall_ns() if before is None else before.since_ns
        waiting = _Waiting(caller, request, until_ns, since_ns)  # in its old place, if it had one
        self._waiting[request.lease_id] = waiting
        self._watch()
        if not waiting.process.runs:  # asked after its end is watched, so that no end is missed
            del self._waiting[request.lease_id]
            self._watch()
            return control.ErrorResult("invalid", f"process {request.pid} does not run here")
        self._grant()
        return None

    def _release(self, _: Caller, request: control.Release) -> control.Nothing:
        self._waiting.pop(request.lease_id, None)
        self._take_back(held for held in self._held.values() if held.lease_id == request.lease_id)
        self._grant()
        return control.Nothing()

    # ------------------------------------------------------------------------------- channels

    def _grant(self) -> None:
        """Grants free channels to requests that wait, and refuses those that have timed out."""
        granted: list[tuple[Caller, str]] = []
        for lease_id, waiting in list(self._waiting.items()):
            channel = self._free(waiting.request.pool)
            if channel is not None:
                del self._waiting[lease_id]
                self._held[channel] = _granted(channel, waiting.request)
                granted.append((waiting.caller, channel))
        if granted:
            self.record()  # before anybody relies on it
        for caller, channel in granted:
            self._reply(caller, control.Leased(channel=channel))
        now = clock.monotonic_ns()
        for lease_id, waiting in list(self._waiting.items()):
            if waiting.until_ns is not None and waiting.until_ns <= now:
                del self._waiting[lease_id]
                late = control.ErrorResult("timeout", self._occupied(waiting.request.pool))
                self._reply(waiting.caller, late)
        self._watch()

    def _free(self, pool: str) -> str | None:
        free = [channel for channel in self.pools[pool] if channel not in self._held]
        return next(filter(self._is_up, free), free[0] if free else None)

    def _occupied(self, pool: str) -> str:
        """The error for a pool without a free channel: says which processes have them."""
        holders = (self._held[channel] for channel in self.pools[pool])
        who = ", ".join(
            f"{held.channel} has process {held.pid} ({held.program})" for held in holders
        )
        return f"no channel of pool {pool!r} was free in time: {who}"

    def _take_back(self, leases: Iterable[_Lease]) -> None:
        given_back = [held.channel for held in leases]
        for channel in given_back:
            del self._held[channel]
        if given_back:
            self.record()

    # ------------------------------------------------------------------------------ processes

    def _watch(self) -> None:
        """Watches the processes that have a lease or wait for one, and no others."""
        wanted = {held.process for held in self._held.values()}
        wanted |= {waiting.process for waiting in self._waiting.values()}
        for process in self._watched.keys() - wanted:
            descriptor = self._watched.pop(process)
            if descriptor is not None:
                self._waiter.remove(descriptor)
                os.close(descriptor)
        for process in wanted - self._watched.keys():
            descriptor = self._watched[process] = end_of(process.pid)
            if descriptor is not None:
                self._waiter.add(descriptor)

    # ----------------------------------------------------------------------------- the record

    def record(self) -> None:
        """Writes the leases to the file; without leases there is no file."""
        if self._held:
            handover.write(self._path, list(self._held.values()))
        else:
            handover.remove(self._path)


def _granted(channel: str, request: control.TakeLease) -> _Lease:
    return _Lease(
        channel=channel,
        pool=request.pool,
        lease_id=request.lease_id,
        pid=request.pid,
        started=request.started,
        program=request.program,
        since_ns=clock.wall_ns(),
    )
