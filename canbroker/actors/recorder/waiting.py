"""How far a recording that waits for its trigger has looked.

It has no file then, so no side file says where the next recorder goes on if this one is killed. A
trigger that comes meanwhile is found in what the channels have kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from copy import copy
from pathlib import Path

import msgspec

from canbroker.actors.recorder.side_file import ChannelEnd
from canbroker.wire import DECODE_ERRORS


class _Looked(msgspec.Struct, kw_only=True):
    recording: str
    output: str
    channels: dict[str, ChannelEnd]


class WaitingFile:
    """Says behind which places of its channels an output looks for the trigger.

    It is not synced: what a channel has kept survives no failure of power, either.
    """

    def __init__(self, path: Path, recording: str, output: str) -> None:
        self._path = path
        self._recording = recording
        self._output = output
        self._written: dict[str, ChannelEnd] | None = None

    def read(self) -> dict[str, ChannelEnd]:
        """The places of the recorder before us; none if it had no file, or has stopped."""
        try:
            found = _decoder.decode(self._path.read_bytes())
        except (OSError, *DECODE_ERRORS):
            return {}
        is_ours = (found.recording, found.output) == (self._recording, self._output)
        return found.channels if is_ours else {}

    def write(self, ends: Mapping[str, ChannelEnd]) -> None:
        """Replaces what it says, in one step.

        :raises OSError: it cannot be written.
        """
        if self._written == ends:
            return
        said = _Looked(recording=self._recording, output=self._output, channels=dict(ends))
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_bytes(msgspec.json.encode(said))
        fresh.replace(self._path)
        self._written = {channel: copy(end) for channel, end in ends.items()}

    def remove(self) -> None:
        """The recording has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


_decoder = msgspec.json.Decoder(_Looked)
