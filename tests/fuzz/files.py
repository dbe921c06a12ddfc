"""Files of every format that is parsed in this process, and those beside a recording. A target
raises for a fault only."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from canbroker.actors.recorder import side_file as sides
from canbroker.actors.recorder.waiting import WaitingFile
from canbroker.errors import CanInitializationError
from canbroker.logs.formats import open_reader
from canbroker.model.frame import frame_fault
from tests.support.systems import skip_on_windows


def reading(kind: str) -> Callable[[bytes], None]:
    """A target: whatever a file is, its frames are valid, or the error names the file."""

    def read(data: bytes) -> None:
        skip_on_windows("files without a name")
        descriptor = os.memfd_create("fuzz")
        try:
            os.write(descriptor, data)
            path = f"/proc/self/fd/{descriptor}"
            with suppress(CanInitializationError), open_reader(path, kind) as reader:
                for record in reader:
                    frame = record.frame
                    assert frame_fault(frame.arbitration_id, frame.flags, frame.data) is None
                    assert 0 <= frame.timestamp_ns < 2**63
                assert len(str(reader.skipped)) < 4000
        finally:
            os.close(descriptor)

    return read


def side_file(data: bytes) -> None:
    """Whatever is beside a recording, it is a side file of that recording or is passed over."""
    with TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "r-1.json").write_bytes(data)
        for side in sides.read_all(directory, "r"):
            assert side.recording == "r"
            assert sides.side_of(directory / side.file) == directory / "r-1.json"
            sides.write(side, directory)
            assert list(sides.read_all(directory, "r")) == [side]


def waiting_file(data: bytes) -> None:
    """Whatever is left by a recorder, it is places or is passed over."""
    with TemporaryDirectory() as place:
        path = Path(place, "r.waiting")
        path.write_bytes(data)
        ends = WaitingFile(path, "r", "").read()
        WaitingFile(path, "r", "").write(ends)
        assert WaitingFile(path, "r", "").read() == ends
