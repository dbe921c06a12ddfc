"""The account of the demonstration: what each client should have got, and what it says it got."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from canbroker.demo.roles import CanFilter, Role
from canbroker.model.frame import EXTENDED, Frame


class Report(msgspec.Struct, kw_only=True):
    """What a client says of itself, twice a second and at the end.

    ``frames`` received, ``lost`` by its own account, ``restarts`` of the channel that it saw;
    ``rate`` in frames/s; latencies in µs, of the last frames, ``None`` before the first one;
    ``digest`` of all frames in their order, at the end only.
    """

    frames: int = 0
    lost: int = 0
    restarts: int = 0
    rate: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None
    digest: str = ""


class Tally:
    """Counts frames, and hashes them in their order: a frame too many or out of order shows."""

    def __init__(self) -> None:
        self.frames = 0
        self._hash = hashlib.sha256()

    def add(self, arbitration_id: int, extended: bool, data: bytes | bytearray | int) -> None:
        """``data`` of a remote frame is its length. The plain subscriber spells the same text."""
        content = f"r{data}" if isinstance(data, int) else data.hex()
        self._hash.update(f"{arbitration_id:x} {'x' if extended else 's'} {content}\n".encode())
        self.frames += 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def passes(can_filters: Sequence[CanFilter] | None, arbitration_id: int, extended: bool) -> bool:
    """Whether a frame passes, by the rule that python-can documents.

    On purpose not :mod:`canbroker.model.filters`, whose work this checks.
    """
    if not can_filters:
        return True
    for entry in can_filters:
        bits_agree = arbitration_id & entry.can_mask == entry.can_id & entry.can_mask
        format_agrees = entry.extended is None or entry.extended == extended
        if bits_agree and format_agrees:
            return True
    return False


def expect(can_filters: Sequence[CanFilter] | None, frames: Iterable[Frame]) -> Tally:
    """What a client with these filters has to get of ``frames``."""
    tally = Tally()
    for frame in frames:
        extended = bool(frame.flags & EXTENDED)
        if passes(can_filters, frame.arbitration_id, extended):
            tally.add(frame.arbitration_id, extended, frame.data)
    return tally


def faults(
    traced: int,
    adapter: Mapping[str, int],
    expected: Mapping[Role, Tally],
    reports: Mapping[str, Report],
) -> list[str]:
    """Everything that is not as it has to be, a sentence each; none: the ledger is exact.

    :param traced: frames in the trace.
    :param adapter: the simulated adapter's own counts.
    :param reports: the last one of each client, by name.
    """
    found = [] if adapter["replayed"] == traced else [_adapter_fault(traced, adapter)]
    for role, tally in expected.items():
        report = reports[role.name]
        if report.frames != tally.frames:
            found.append(f"{role.name} got {report.frames} frames instead of {tally.frames}")
        elif report.digest != tally.digest:
            found.append(f"{role.name} got other frames, or in another order")
        if report.lost:
            found.append(f"{role.name} counts {report.lost} frames as lost")
        if report.restarts:
            found.append(f"{role.name} saw the channel restart {report.restarts} times")
    return found


def lost(expected: Mapping[Role, Tally], reports: Mapping[str, Report]) -> int:
    """Frames that should have arrived at some client and did not, or that it reports as lost."""
    return sum(
        max(reports[role.name].lost, tally.frames - reports[role.name].frames, 0)
        for role, tally in expected.items()
    )


def _adapter_fault(traced: int, adapter: Mapping[str, int]) -> str:
    return (
        f"the adapter passed {adapter['replayed']} of {traced} frames on "
        f"({adapter['overruns']} overruns: what reads it is too slow)"
    )
