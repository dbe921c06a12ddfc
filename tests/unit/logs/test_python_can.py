"""BLF, ASC and TRC of other tools: dates, parts, damage, and what python-can does not read."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import Final

import can
import pytest

from canbroker.logs.formats import open_reader
from canbroker.logs.records import Record

_ASC: Final = """date Mon Nov 30 10:00:00.000 am 2026
base hex  timestamps absolute
internal events logged
Begin Triggerblock Mon Nov 30 10:00:00.000 am 2026
   0.000000 Start of measurement
   0.100000 1  123             Rx   d 2 01 02
   0.200000 1  Statistic: D 1 R 0 XD 0 XR 0 E 0 O 0 B 0.00%
// a comment
   0.300000 2  18FEF1FEx       Tx   d 1 FF
End TriggerBlock
"""


def read(path: Path, text: str | bytes) -> tuple[list[Record], str, str | None]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with open_reader(path) as reader:
        return list(reader), str(reader.skipped), reader.end


@pytest.fixture
def asc(tmp_path: Path) -> Path:
    return tmp_path / "drive.asc"


@pytest.fixture
def trc(tmp_path: Path) -> Path:
    return tmp_path / "drive.trc"


def at(hour: int, day: int = 30) -> int:
    """Local time, as ASC has it."""
    return round(time.mktime((2026, 11, day, hour, 0, 0, 0, 0, -1))) * 10**9


def test_an_asc_file_of_vector(asc: Path) -> None:
    records, skipped, end = read(asc, _ASC)
    assert [(r.channel, r.sent, r.frame.arbitration_id) for r in records] == [
        ("1", False, 0x123),
        ("2", True, 0x18FEF1FE),
    ]
    times = [record.frame.timestamp_ns - at(10) for record in records]
    assert times == [100_000_000, 300_000_000]
    assert "1 lines without a frame (line 7: " in skipped
    assert end is None


def test_a_date_in_a_language_that_nobody_knows_leaves_the_times_relative(asc: Path) -> None:
    records, skipped, _ = read(asc, _ASC.replace("Mon Nov", "Lun N\xe9v"))
    assert [record.frame.timestamp_ns for record in records] == [100_000_000, 300_000_000]
    assert "2 damaged lines (line 1: " in skipped


def test_umlauts_of_windows_and_of_today(asc: Path) -> None:
    for encoding in ("utf-8", "cp1252"):
        text = _ASC.replace("Mon Nov", "Mo M\xe4r").encode(encoding)
        (first, _), _, _ = read(asc, text)
        assert first.frame.timestamp_ns > 10**18


def test_parts_of_an_asc_file_have_times_of_their_own_also_after_damage(asc: Path) -> None:
    second = _ASC[_ASC.index("Begin") :].replace("30 10:00", "30 11:00")
    damaged = second.replace("   0.200000", "   0.150000 1  123  Rx  d 8 zz\n   0.200000")
    records, skipped, _ = read(asc, _ASC + damaged)
    times = [record.frame.timestamp_ns for record in records]
    assert times == [
        *(at(10) + 100_000_000, at(10) + 300_000_000),
        *(at(11) + 100_000_000, at(11) + 300_000_000),
    ]
    assert "1 damaged lines" in skipped


def test_every_damaged_line_is_counted_and_the_others_are_read(asc: Path) -> None:
    good = "   0.100000 1  123             Rx   d 2 01 02\n"
    bad = "   0.100000 1  123             Rx   d 2 01 xx\n"
    short = "   0.100000 1  123             Rx   d 8 01 02\n"
    body = (good + bad + short) * 50
    records, skipped, _ = read(asc, _ASC.replace(good, body))
    assert len(records) == 51
    assert "100 damaged lines (line 7: " in skipped


def test_a_file_without_a_frame_is_empty(asc: Path, trc: Path) -> None:
    assert read(asc, _ASC[: _ASC.index("   0.1")]) == ([], "skipped ", None)
    assert read(trc, ";$FILEVERSION=1.1\n;$STARTTIME=46356.5\n")[0] == []


_TRC: Final = """;$FILEVERSION={version}
;$STARTTIME=46356.5
;$COLUMNS=N,O,T,B,I,d,R,L,D
;
"""


def test_trc_of_version_2_has_fd_and_remote_frames(trc: Path) -> None:
    rows = (
        "      1         1.000 DT  1     0123 Rx -  2    01 02\n"
        "      2         2.000 FB  2 18FEF1FE Tx -  9    " + "00 " * 12 + "\n"
        "      3         3.000 RR  1     0321 Rx -  4    \n"
        "      4         4.000 ER  1     0004 Rx -  5    00 00 00 00 00\n"
    )
    records, skipped, _ = read(trc, _TRC.format(version="2.1") + rows)
    assert [(r.channel, len(r.frame.data)) for r in records[:2]] == [("1", 2), ("2", 12)]  # type: ignore[arg-type]
    assert records[2].frame.data == 4
    assert records[0].frame.timestamp_ns == 1_796_040_000_001_000_000
    assert "1 lines without a frame (line 8: " in skipped


def test_trc_of_version_1_1(trc: Path) -> None:
    rows = (
        "     1)         1.5  Rx         0123  8  00 01 02 03 04 05 06 07\n"
        "     2)         2.5  Tx     18FEF1FE  2  00 01\n"
        "     3)         3.5  Warng  FFFFFFFF  4  00 00 00 08\n"
    )
    records, skipped, _ = read(trc, ";$FILEVERSION=1.1\n;$STARTTIME=46356.5\n" + rows)
    assert [(r.frame.arbitration_id, r.sent) for r in records] == [
        (0x123, False),
        (0x18FEF1FE, True),
    ]
    assert "1 lines without a frame" in skipped


def test_a_damaged_header_of_a_trc_file_is_said(trc: Path) -> None:
    row = "     1)         1.5  Rx         0123  1  00\n"
    records, skipped, _ = read(trc, ";$FILEVERSION=1.1\n;$STARTTIME=never\n" + row)
    assert [record.frame.timestamp_ns for record in records] == [1_500_000]
    assert "1 damaged lines (line 2: " in skipped


# ------------------------------------------------------------------------------------------- BLF

_OBJECT_SIZE: Final = struct.Struct("<L")


def _blf(path: Path, sizes: dict[int, int]) -> tuple[list[int], str | None]:
    """The identifiers of six frames in a file in which objects have these sizes by number, and why
    the reading ended."""
    with can.BLFWriter(str(path), compression_level=0) as writer:
        for number in range(6):
            writer.on_message_received(can.Message(arbitration_id=number, timestamp=1.7e9 + number))
    content = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(b"LOBJ", content)]
    for number, size in sizes.items():
        _OBJECT_SIZE.pack_into(content, starts[number] + 8, size)
    path.write_bytes(content)
    with open_reader(path) as reader:
        return [record.frame.arbitration_id for record in reader], reader.end


@pytest.mark.parametrize("size", [0, 1 << 31])
@pytest.mark.parametrize("number", [0, 1, 4])  # 0 is the container
def test_an_object_with_an_impossible_size_ends_a_blf_file(
    tmp_path: Path, number: int, size: int
) -> None:
    found, end = _blf(tmp_path / "drive.blf", {number: size})
    assert found == list(range(max(0, number - 1)))
    assert end is not None
    assert ("impossible size" if number else "a length of") in end


def test_a_blf_file_without_damage_ends_where_it_ends(tmp_path: Path) -> None:
    assert _blf(tmp_path / "drive.blf", {}) == (list(range(6)), None)
