"""Lines of dump that are decoded, or JSON."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import pytest

from canbroker.cli.lines import DecodedLines, Decoding, HumanLines, JsonLines, LogLines
from canbroker.model.frame import BITRATE_SWITCH, ERROR, EXTENDED, FD, REMOTE, Frame
from tests.support.databases import CAR_DBC

_T: Final = 1_700_000_001_234_567_890
_MOTION: Final = struct.pack("<HBb4x", 875, 4, -3)


def decoding(text: str = CAR_DBC) -> Decoding:
    decoder = pytest.importorskip("canbroker.signals.decoder", reason="needs the extra signals")
    return Decoding({"can0": decoder.Decoder.parse(text.encode(), "car.dbc")})


def row(frame: Frame, by: Decoding | None = None) -> dict[str, Any]:
    line = JsonLines(by).line("can0", frame)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_frame_as_json() -> None:
    line = JsonLines(None).line("can0", Frame(_T, 0x123, 0, b"\x01\xff"))
    assert line.startswith('{"timestamp":1700000001.234567890,"channel":"can0",')
    assert json.loads(line) == {
        "timestamp": 1700000001.23456789,
        "channel": "can0",
        "arbitration_id": 0x123,
        "is_extended_id": False,
        "is_remote_frame": False,
        "is_error_frame": False,
        "is_fd": False,
        "bitrate_switch": False,
        "error_state_indicator": False,
        "dlc": 2,
        "data": "01ff",
    }


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (Frame(_T, 0x12345678, EXTENDED | REMOTE, 5), {"is_remote_frame": True, "dlc": 5}),
        (Frame(_T, 0x88, ERROR, bytes(8)), {"is_error_frame": True, "data": "00" * 8}),
        (Frame(_T, 1, FD | BITRATE_SWITCH, bytes(12)), {"is_fd": True, "bitrate_switch": True}),
    ],
)
def test_every_kind_of_frame_has_a_line(frame: Frame, fields: dict[str, Any]) -> None:
    found = row(frame)
    assert found["is_extended_id"] == bool(frame.flags & EXTENDED)
    assert fields.items() <= found.items()


def test_signals_as_json() -> None:
    by = decoding()
    found = row(Frame(_T, 0x123, 0, _MOTION), by)
    assert found["message"] == "Motion"
    assert found["signals"] == {"Speed": 87.5, "Gear": 4, "Slope": -1.5}
    assert found["labels"] == {"Gear": "Drive"}
    assert "problem" not in found
    assert row(Frame(_T, 0x124, 0, b""), by)["message"] is None
    wrong = row(Frame(_T, 0x123, 0, b""), by)
    assert wrong["problem"] == "Wrong data size: 0 instead of 8 bytes"
    assert "signals" not in wrong


def test_a_decoded_line_is_the_line_with_the_signals_behind_it() -> None:
    by = decoding()
    frame = Frame(_T, 0x123, 0, _MOTION)
    for inner in (HumanLines(None, 4), HumanLines("a", 4), LogLines()):
        line = DecodedLines(inner, by).line("can0", frame)
        said = "Motion(Speed: 87.5 km/h, Gear: Drive, Slope: -1.5 %)"
        assert line == f"{inner.line('can0', frame)} :: {said}"


@pytest.mark.parametrize("frame", [Frame(_T, 0x123, REMOTE, 8), Frame(_T, 0x123, ERROR, bytes(8))])
def test_frames_without_data_stay_as_they_are(frame: Frame) -> None:
    assert DecodedLines(LogLines(), decoding()).line("can0", frame) == LogLines().line(
        "can0", frame
    )


def test_what_does_not_decode_is_counted_by_message() -> None:
    by = decoding()
    lines = DecodedLines(LogLines(), by)
    assert list(by.report()) == []
    for identifier, data in ((0x123, b""), (0x123, b"\0"), (500, b"\x07\0\0"), (0x124, b"")):
        lines.line("can0", Frame(_T, identifier, 0, data))
    assert list(by.report()) == ["can0: 3 frames did not decode: Motion (2), Probe (1)"]


def test_names_of_a_database_cannot_control_a_terminal() -> None:
    line = DecodedLines(LogLines(), decoding(CAR_DBC.replace("km/h", "\x1b[2J\n"))).line(
        "can0", Frame(_T, 0x123, 0, _MOTION)
    )
    assert line.isprintable()
    assert r"\x1b[2J\n" in line
