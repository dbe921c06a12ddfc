"""A file that is replaced when its successor is complete."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from canbroker.logs.files import replaced
from tests.support.full_disk import full_disk


def test_the_file_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    path.write_text("old")
    with replaced(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    path.write_text("old")
    with full_disk(3), pytest.raises(OSError, match="File too large"), replaced(path) as part:
        part.write_text("newer")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "drive.log", tmp_path / "last.log"
    link.symlink_to(path)
    with replaced(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with replaced(pipe) as part:
        part.write_text("new")
    reader.join(20)
    assert read == ["new"]
    assert pipe.is_fifo()
