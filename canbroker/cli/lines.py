"""The lines that ``canbroker dump`` prints: as candump does, decoded as well, or as JSON."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from canbroker.delivery.tap import Frames
from canbroker.logs.candump import format_human, format_log_line
from canbroker.model.frame import (
    BITRATE_SWITCH,
    ERROR,
    ERROR_STATE_INDICATOR,
    EXTENDED,
    FD,
    REMOTE,
    Frame,
)
from canbroker.model.wording import printable
from canbroker.system import clock

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder
    from canbroker.signals.values import Decoded

_MICROSECOND: Final = 1000


class Lines(ABC):
    """Makes a line of each frame; a line may depend on those before it."""

    @abstractmethod
    def line(self, channel: str, frame: Frame) -> str:
        """Without its end."""


class LogLines(Lines):
    """Lines of ``candump -L``."""

    def line(self, channel: str, frame: Frame) -> str:
        return format_log_line(frame, channel)

    def text(self, event: Frames) -> str:
        return "".join(f"{self.line(event.channel, frame)}\n" for frame in event.frames)


class HumanLines(Lines):
    """Lines for a screen."""

    def __init__(self, stamp: str | None, width: int) -> None:
        """``width``: length of the longest channel name; ``stamp``: as the option ``-t``."""
        self._stamp = stamp
        self._width = width
        self._align = False
        self._since_ns: int | None = None

    def line(self, channel: str, frame: Frame) -> str:
        self._align = self._align or bool(frame.flags & EXTENDED)
        text = format_human(frame, channel.rjust(self._width), align=self._align)
        return f" {self._time(frame.timestamp_ns)}{text}" if self._stamp else text

    def _time(self, now_ns: int) -> str:
        seconds, rest_ns = divmod(now_ns, clock.SECOND)
        match self._stamp:
            case "a":
                return f"({seconds:010}.{rest_ns // _MICROSECOND:06})"
            case "A":
                date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
                return f"({date}.{rest_ns // _MICROSECOND:06})"
        since_ns = now_ns if self._since_ns is None else self._since_ns
        if self._stamp == "d" or self._since_ns is None:
            self._since_ns = now_ns
        # Frames of two adapters may not be in the order of their timestamps.
        seconds, rest_ns = divmod(max(0, now_ns - since_ns), clock.SECOND)
        return f"({seconds:03}.{rest_ns // _MICROSECOND:06})"


class Decoding:
    """The decoders of channels, and the frames whose data was not that of their message."""

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        """``decoders``: by channel."""
        self._decoders = decoders
        self._undecoded: Counter[tuple[str, str]] = Counter()

    def decode(self, channel: str, frame: Frame) -> Decoded | None:
        """As :meth:`Decoder.decode`; counts frames that do not decode."""
        decoded = self._decoders[channel].decode(frame)
        if decoded is not None and decoded.problem:
            self._undecoded[channel, decoded.message] += 1
        return decoded

    def report(self) -> Iterable[str]:
        """A sentence for each channel with frames that did not decode."""
        for channel in self._decoders:
            counts = {
                message: count
                for (where, message), count in self._undecoded.items()
                if where == channel
            }
            if counts:
                named = ", ".join(f"{message} ({count:,})" for message, count in counts.items())
                total = sum(counts.values())
                yield printable(f"{channel}: {total:,} frames did not decode: {named}")


class DecodedLines(Lines):
    """Other lines with what the frame says behind each, as ``cantools decode --single-line``.

    Error frames and remote frames, which have no data, stay as they are.
    """

    def __init__(self, lines: Lines, decoding: Decoding) -> None:
        self._lines = lines
        self._decoding = decoding

    def line(self, channel: str, frame: Frame) -> str:
        text = self._lines.line(channel, frame)
        if frame.flags & (ERROR | REMOTE):
            return text
        decoded = self._decoding.decode(channel, frame)
        if decoded is None:
            number = frame.arbitration_id
            return f"{text} :: Unknown frame id {number} (0x{number:x})"
        return f"{text} :: {printable(str(decoded))}"


class JsonLines(Lines):
    """A JSON object for each frame. The reference of formats documents its fields."""

    def __init__(self, decoding: Decoding | None) -> None:
        self._decoding = decoding

    def line(self, channel: str, frame: Frame) -> str:
        flags, data = frame.flags, frame.data
        seconds, rest_ns = divmod(frame.timestamp_ns, clock.SECOND)
        row: dict[str, Any] = {
            # Not a floating-point number, which would be rounded to 238 ns.
            "timestamp": msgspec.Raw(f"{seconds}.{rest_ns:09}".encode()),
            "channel": channel,
            "arbitration_id": frame.arbitration_id,
            "is_extended_id": bool(flags & EXTENDED),
            "is_remote_frame": bool(flags & REMOTE),
            "is_error_frame": bool(flags & ERROR),
            "is_fd": bool(flags & FD),
            "bitrate_switch": bool(flags & BITRATE_SWITCH),
            "error_state_indicator": bool(flags & ERROR_STATE_INDICATOR),
            "dlc": data if isinstance(data, int) else len(data),
            "data": "" if isinstance(data, int) else data.hex(),
        }
        if self._decoding is not None:
            row |= _decoded(self._decoding.decode(channel, frame))
        return msgspec.json.encode(row).decode()


def _decoded(decoded: Decoded | None) -> dict[str, Any]:
    if decoded is None:
        return {"message": None}
    if decoded.problem:
        return {"message": decoded.message, "problem": decoded.problem}
    signals = {each.name: each.value for each in decoded.signals}
    labels = {each.name: each.label for each in decoded.signals if each.label is not None}
    return {"message": decoded.message, "signals": signals, "labels": labels}
