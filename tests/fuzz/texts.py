"""What people and files say. A target raises for a fault, and for nothing else."""

from __future__ import annotations

import io
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Final

from canbroker.actors import sections
from canbroker.actors.recorder.trigger import condition, needed
from canbroker.backends.configured import check
from canbroker.configuration import broker_file, bus_settings, sources
from canbroker.errors import CanError, CanInitializationError
from canbroker.logs import candump, reader
from canbroker.model import filters
from canbroker.model.filters import Filter, FilterSet
from canbroker.model.frame import ERROR, EXTENDED, Frame, frame_fault
from canbroker.transport.address import TcpAddress, parse_address, parse_listen

#: Identifiers and flags that tell most sets of filters apart.
_PROBES: Final = (
    *itertools.product((0, 1, 0x451, 0x7FF), (0, EXTENDED, ERROR, EXTENDED | ERROR)),
    *itertools.product((0x800, 0x1FFFFFFF), (EXTENDED, EXTENDED | ERROR)),
)


def filter_set(data: bytes) -> None:
    """The canonical set passes what its entries pass one by one."""
    text = data.decode("latin-1")
    try:
        found = filters.parse(text)
    except ValueError:
        return
    assert filters.parse(found.text) == found
    entries = [] if text in {"", filters.NOTHING_TEXT} else text.split(",")
    single: list[Filter] = [item for entry in entries for item in filters.parse(entry).filters]
    everything = not text or any(filters.parse(entry) == filters.EVERYTHING for entry in entries)
    for identifier, flags in _PROBES:
        passes = everything or any(item.matches(identifier, flags) for item in single)
        assert found.matches(identifier, flags) == passes


def address(data: bytes) -> None:
    """An address is the same again after it was text."""
    text = data.decode(errors="replace")
    for parse in (parse_address, parse_listen):
        try:
            found = parse(text)
        except CanInitializationError:
            continue
        assert str(found).isprintable()
        assert parse(str(found)) == found
        if isinstance(found, TcpAddress):
            assert 0 <= found.port < 1 << 16
            assert found.encrypted or found.is_loopback


def log_line(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        entry = candump.parse_log_line(text)
    except ValueError:
        return
    line = candump.format_log_line(entry.frame, entry.interface, "R")
    again = candump.parse_log_line(line)
    entry.frame.timestamp_ns -= entry.frame.timestamp_ns % 1000  # a log has microseconds
    assert again.frame == entry.frame, line
    assert candump.format_human(entry.frame, entry.interface)


class _Dribble(io.BytesIO):
    """Gives some bytes at a time, as a pipe does."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(min(7, size or 7))


def log(data: bytes) -> None:
    """Whatever a file is, its frame lines are read, however it comes; the others are counted."""
    whole = reader.LogReader(io.BytesIO(data), "f.log")
    parts = reader.LogReader(_Dribble(data), "f.log")
    entries: list[candump.LogEntry] = []
    with suppress(CanError):
        entries += whole
    with suppress(CanError):
        assert list(parts) == entries
    for entry in entries:
        frame = entry.frame
        assert frame_fault(frame.arbitration_id, frame.flags, frame.data) is None
        assert 0 <= frame.timestamp_ns < 2**63
    assert parts.skipped.counts == whole.skipped.counts
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert len(entries) + whole.skipped.counts.total() == lines
    assert len(str(whole.skipped)) < 2000


def frame_text(data: bytes) -> None:
    try:
        frame = candump.parse_frame(data.decode(errors="replace"))
    except ValueError:
        return
    assert candump.parse_frame(candump.format_frame(frame)) == frame


def dump_filters(data: bytes) -> None:
    try:
        found = candump.parse_dump_filters(data.decode(errors="replace"))
    except ValueError:
        return
    assert isinstance(found, FilterSet)


def trigger(data: bytes) -> None:
    """A text is refused, or a condition that sees the frames which may fulfil it."""
    text = data.decode(errors="replace")
    try:
        seen = needed(text)
    except ValueError:
        return
    try:
        fulfils = condition(text, "")
    except CanError as error:
        if "signal" not in str(error):
            raise
        return
    for identifier, flags in _PROBES:
        for content in (b"", bytes(8), b"\x01"):
            if fulfils(Frame(0, identifier, flags, content)):
                assert seen.matches(identifier, flags)


def toml(data: bytes) -> None:
    """Whatever a file says, it is a configuration or the error names what is wrong."""
    fault = "f.toml"
    try:
        config = broker_file.parse(data.decode(errors="replace"), "f.toml")
        check(config)
        sections.check(config)
    except CanError as error:
        fault = str(error)
    assert "f.toml" in fault


def ini(data: bytes) -> None:
    """A ``can.conf``, from its text to the settings of a bus."""
    files = [sources._File(Path("can.conf"), data.decode(errors="replace"))]
    with suppress(CanError):
        values = sources._parse(files, "hil")
        bus_settings.effective(bus_settings.Settings(values, ["can.conf"]), lambda _: ["body"])
