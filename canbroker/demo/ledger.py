"""The demonstration's ledger compares what each client should receive with what it reports."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from canbroker.demo.roles import CanFilter, Role
from canbroker.model.frame import EXTENDED, Frame


class Report(msgspec.Struct, kw_only=True):
    """A client's report, twice a second and at the end.

    Number of ``frames`` received, number of ``lost`` frames and of channel ``restarts`` that it
    noticed; ``rate`` in frames/s; latencies of the latest frames in µs, ``None`` before the first
    frame; ``digest`` of all frames in their order, only at the end.
    """

    frames: int = 0
    lost: int = 0
    restarts: int = 0
    rate: float = 0.0
    p50_us: float | None = None
    p99_us: float | None = None
    digest: str = ""


class Tally:
    """Counts frames and hashes them in order, so that an extra or misplaced frame shows."""

    def __init__(self) -> None:
        self.frames = 0
        self._hash = hashlib.sha256()

    def add(self, arbitration_id: int, extended: bool, data: bytes | bytearray | int) -> None:
        """``data`` of a remote frame is its length. The plain subscriber hashes the same text."""
        content = f"r{data}" if isinstance(data, int) else data.hex()
        self._hash.update(f"{arbitration_id:x} {'x' if extended else 's'} {content}\n".encode())
        self.frames += 1

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def passes(can_filters: Sequence[CanFilter] | None, arbitration_id: int, extended: bool) -> bool:
    """Whether a frame passes, by the rule that python-can documents.

    Deliberately independent of :mod:`canbroker.model.filters`, which it checks.
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
    """The tally of the ``frames`` that a client with these filters must receive."""
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
    """A sentence for each fault; the ledger is exact if there is none.

    :param traced: number of frames in the trace.
    :param adapter: the simulated adapter's own counts.
    :param reports: the last report of each client, by name.
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
    """Number of frames that did not arrive at a client, or that it reports as lost."""
    return sum(
        max(reports[role.name].lost, tally.frames - reports[role.name].frames, 0)
        for role, tally in expected.items()
    )


def _adapter_fault(traced: int, adapter: Mapping[str, int]) -> str:
    return (
        f"the adapter passed {adapter['replayed']} of {traced} frames on "
        f"({adapter['overruns']} overruns: its reader is too slow)"
    )
