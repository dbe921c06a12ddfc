"""python-can's writers of log files, fed by our Notifier, and by python-can's from our plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import can
import pytest

import canbroker
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until

PATIENCE_S: Final = 20.0

_CLASSIC: Final = (
    can.Message(arbitration_id=0x123, is_extended_id=False, data=bytes(range(8))),
    can.Message(arbitration_id=0x7FF, is_extended_id=False, data=b"\xff"),
    can.Message(arbitration_id=0x1ABCDEF0, data=b"\x01\x02\x03"),
    can.Message(arbitration_id=0, is_extended_id=False),
)
_REMOTE: Final = (
    can.Message(arbitration_id=0x321, is_extended_id=False, is_remote_frame=True, dlc=4),
    can.Message(arbitration_id=0x1FFFFFFF, is_remote_frame=True, dlc=8),
)
_FD: Final = (
    can.Message(arbitration_id=0x456, is_extended_id=False, is_fd=True, data=bytes(range(64))),
    can.Message(arbitration_id=0x18DA00F1, is_fd=True, bitrate_switch=True, data=bytes(12)),
)

#: What each format has room for.
_FORMATS: Final[Mapping[str, tuple[Any, ...]]] = {
    ".asc": (*_CLASSIC, *_REMOTE, *_FD),
    ".blf": (*_CLASSIC, *_REMOTE, *_FD),
    ".csv": (*_CLASSIC, *_REMOTE),
    ".db": (*_CLASSIC, *_REMOTE),
    ".log": (*_CLASSIC, *_FD),  # it drops the length of remote frames
    ".mf4": (*_CLASSIC, *_REMOTE, *_FD),
    ".trc": _CLASSIC,
}
_RESOLUTION_S: Final = 2e-6  # of the coarsest


@contextmanager
def _ours(listeners: list[Any]) -> Iterator[None]:
    with canbroker.Bus("bench", "virtual") as bus, canbroker.Notifier(bus, listeners):
        yield


@contextmanager
def _plugin(listeners: list[Any]) -> Iterator[None]:
    with (
        can.Bus("bench", interface="canbroker", adapter="virtual") as bus,
        can.Notifier(bus, listeners, timeout=0.05),  # for so long its stop() may take
    ):
        yield


@pytest.mark.parametrize("received_by", [_ours, _plugin])
@pytest.mark.parametrize("suffix", _FORMATS)
def test_a_recording_has_what_was_received(
    runtime: Runtime, tmp_path: Path, suffix: str, received_by: Any
) -> None:
    frames = _FORMATS[suffix]
    log = tmp_path / f"drive{suffix}"
    received: list[Any] = []
    with (
        # A bus that takes a real one's time: each frame has a moment of its own.
        canbroker.Bus("bench", "virtual", bitrate=500_000, data_bitrate=2_000_000) as sender,
        received_by([can.Logger(str(log)), received.append]),
    ):
        sender.send_batch(frames)
        wait_until(lambda: len(received) == len(frames), "all frames arrive")
    with can.LogReader(str(log)) as reader:
        read = list(reader)
    assert [_content(message) for message in read] == [_content(message) for message in frames]
    assert _times(read) == pytest.approx(_times(received), abs=_RESOLUTION_S)


def _content(message: Any) -> tuple[Any, ...]:
    return (
        *(message.arbitration_id, message.is_extended_id, message.is_remote_frame),
        *(message.is_fd, message.bitrate_switch, message.is_error_frame),
        *(message.dlc, bytes(message.data)),
    )


def _times(messages: Sequence[Any]) -> list[float]:
    """Seconds since the first one: some formats count from there."""
    return [message.timestamp - messages[0].timestamp for message in messages]
