"""Leases: somebody has a channel of a pool for a while, or waits for one.

Leases survive a broker that is killed: its successor reads them from a file in the runtime
directory. A lease ends with its owner; :mod:`canbroker.transport.ownership` says when that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from canbroker.broker import handover
from canbroker.system import clock
from canbroker.system.processes import Process
from canbroker.transport.ownership import Owner, Ownership, RemoteOwner
from canbroker.transport.replier import Caller, Handler
from canbroker.transport.waiter import Waiter
from canbroker.wire import control
from canbroker.wire.status import LeaseStatus

#: The most requests that wait for a channel.
MAX_WAITING: Final = 1024


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease, as it is written to the file."""

    channel: str
    pool: str
    lease_id: str
    pid: int | None
    started: int
    program: str
    since_ns: int  # wall clock
    identity: bytes = b""  # of the connection that it belongs to, if there is no process

    @property
    def owner(self) -> Owner:
        return _owner(self.pid, self.started, self.identity)


@dataclass(frozen=True)
class _Waiting:
    caller: Caller
    request: control.TakeLease
    until_ns: int | None  # monotonic
    since_ns: int  # wall clock

    @property
    def owner(self) -> Owner:
        return _owner(self.request.pid, self.request.started, self.caller.identity)


class Leases:
    """All leases of a broker; serves their methods. Used by the broker's one thread."""

    def __init__(
        self,
        path: Path,
        pools: Mapping[str, Sequence[str]],
        waiter: Waiter,
        reply: Callable[[Caller, msgspec.Struct], None],
        is_up: Callable[[str], bool],
        is_connected: Callable[[bytes], bool],
    ) -> None:
        """Takes over the leases that a killed predecessor has written to ``path``.

        :param pools: names of the channels of each pool.
        :param waiter: watches processes; :meth:`step` needs what it finds readable.
        :param reply: answers a request.
        :param is_up: whether a channel works; channels that do not are leased last.
        :param is_connected: whether a peer with this identity is connected to the broker.
        """
        self.pools = pools
        self.handlers: Mapping[str, Handler] = {"lease": self._lease, "release": self._release}
        self._path = path
        self._owners = Ownership(waiter, is_connected)
        self._reply = reply
        self._is_up = is_up
        self._waiting: dict[str, _Waiting] = {}  # by lease id, in order of arrival
        # Also of channels that are in no pool now: the next configuration may have them in one.
        self._held = {
            held.channel: held for held in handover.read(path, _Lease) if _may_return(held.owner)
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

    def step(self, ready: set[object], now_ns: int) -> None:
        """Takes leases back from owners that are gone, and grants free channels.

        :param ready: what the waiter has found readable.
        :param now_ns: monotonic.
        """
        gone = self._owners.gone(ready, now_ns)
        if gone:
            self._take_back(held for held in self._held.values() if held.owner in gone)
            for lease_id, waiting in list(self._waiting.items()):
                if waiting.owner in gone:
                    del self._waiting[lease_id]
        self._grant()

    def visible_pools(self, request: control.Viewed) -> dict[str, list[str]]:
        """The channels of each pool that the caller may know of; pools that have some."""
        visible = {pool: self._visible(pool, request) for pool in self.pools}
        return {pool: names for pool, names in visible.items() if names}

    def status(self, request: control.Viewed = control.EVERYTHING) -> list[LeaseStatus]:
        """All leases that the caller may know of, then all requests that wait, in order of
        arrival."""
        now = clock.wall_ns()
        pools = self.visible_pools(request)
        return [
            LeaseStatus(
                lease_id=held.lease_id,
                pool=held.pool,
                channel=held.channel,
                pid=held.pid,
                program=held.program,
                since_s=max(0, now - held.since_ns) / clock.SECOND,
            )
            for held in self._held.values()
            if control.is_visible(held.channel, request)
        ] + [
            LeaseStatus(
                lease_id=lease_id,
                pool=waiting.request.pool,
                channel=None,
                pid=waiting.request.pid,
                program=waiting.request.program,
                since_s=max(0, now - waiting.since_ns) / clock.SECOND,
            )
            for lease_id, waiting in self._waiting.items()
            if waiting.request.pool in pools
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
        pools = self.visible_pools(request)
        if request.pool not in pools:
            known = ", ".join(map(repr, pools)) or "none"
            unknown = f"no pool {request.pool!r}; pools of this broker: {known}"
            return control.ErrorResult("initialization", unknown)
        for held in self._held.values():
            if held.lease_id == request.lease_id:
                self._move(held, caller)
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
        if not _may_return(waiting.owner):  # checked after its end is watched: none is missed
            del self._waiting[request.lease_id]
            self._watch()
            return control.ErrorResult("invalid", f"process {request.pid} does not run here")
        self._grant()
        return None

    def _move(self, held: _Lease, caller: Caller) -> None:
        """A lease without a process belongs to the connection that asked for it last."""
        if held.pid is None and held.identity != caller.identity:
            self._held[held.channel] = msgspec.structs.replace(held, identity=caller.identity)
            self._watch()
            self.record()

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
            channel = self._free(waiting.request)
            if channel is not None:
                del self._waiting[lease_id]
                self._held[channel] = _granted(channel, waiting)
                granted.append((waiting.caller, channel))
        if granted:
            self.record()  # before anybody relies on it
        for caller, channel in granted:
            self._reply(caller, control.Leased(channel=channel))
        now = clock.monotonic_ns()
        for lease_id, waiting in list(self._waiting.items()):
            if waiting.until_ns is not None and waiting.until_ns <= now:
                del self._waiting[lease_id]
                late = control.ErrorResult("timeout", self._occupied(waiting.request))
                self._reply(waiting.caller, late)
        self._watch()

    def _visible(self, pool: str, request: control.Viewed) -> list[str]:
        """The channels of a pool that the caller may know of."""
        return [name for name in self.pools[pool] if control.is_visible(name, request)]

    def _free(self, request: control.TakeLease) -> str | None:
        channels = self._visible(request.pool, request)
        free = [channel for channel in channels if channel not in self._held]
        return next(filter(self._is_up, free), free[0] if free else None)

    def _occupied(self, request: control.TakeLease) -> str:
        """The error for a pool without a free channel: says which processes have them."""
        pool = request.pool
        holders = (self._held[channel] for channel in self._visible(pool, request))
        who = ", ".join(f"{held.channel} is held by {_name(held)}" for held in holders)
        return f"no channel of pool {pool!r} was free in time: {who}"

    def _take_back(self, leases: Iterable[_Lease]) -> None:
        given_back = [held.channel for held in leases]
        for channel in given_back:
            del self._held[channel]
        if given_back:
            self.record()

    def _watch(self) -> None:
        """Watches the owners that have a lease or wait for one, and no others."""
        owners = {held.owner for held in self._held.values()}
        owners |= {waiting.owner for waiting in self._waiting.values()}
        self._owners.watch(owners, clock.monotonic_ns())

    # ----------------------------------------------------------------------------- the record

    def record(self) -> None:
        """Writes the leases to the file; without leases there is no file."""
        if self._held:
            handover.write(self._path, list(self._held.values()))
        else:
            handover.remove(self._path)


def _owner(pid: int | None, started: int, identity: bytes) -> Owner:
    return RemoteOwner(identity) if pid is None else Process(pid, started)


def _may_return(owner: Owner) -> bool:
    """Whether an owner that has not been watched so far is there, or may be soon."""
    return isinstance(owner, RemoteOwner) or owner.runs


def _name(held: _Lease) -> str:
    return held.program if held.pid is None else f"process {held.pid} ({held.program})"


def _granted(channel: str, waiting: _Waiting) -> _Lease:
    request = waiting.request
    return _Lease(
        channel=channel,
        pool=request.pool,
        lease_id=request.lease_id,
        pid=request.pid,
        started=request.started,
        program=request.program,
        since_ns=clock.wall_ns(),
        identity=b"" if request.pid is not None else waiting.caller.identity,
    )
