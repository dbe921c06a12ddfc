"""The files that a broker leaves for its successor."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from canbroker.broker import handover


class Entry(msgspec.Struct):
    name: str
    pid: int


def test_a_successor_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "entries"
    entries = [Entry("a", 1), Entry("ä", 2)]
    handover.write(path, [])
    handover.write(path, entries)
    assert handover.read(path, Entry) == entries
    assert list(tmp_path.iterdir()) == [path]
    handover.remove(path)
    assert handover.read(path, Entry) == []
    handover.remove(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"[{]", b'[{"name": "a"}]', b'[{"name": "\xff", "pid": 1}]', b"[" * 100_000],
    ids=["empty", "syntax", "incomplete", "not UTF-8", "too deep"],
)
def test_what_is_not_readable_is_named(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "entries"
    path.write_bytes(content)
    assert handover.read(path, Entry) == []
    [record] = caplog.records
    assert f"{path} is not readable: " in record.getMessage()


def test_a_file_that_cannot_be_written_or_removed_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "entries"
    path.mkdir()
    handover.write(path, [Entry("a", 1)])
    handover.remove(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {path}",
        f"cannot remove {path}",
    ]
    assert handover.read(path, Entry) == []
