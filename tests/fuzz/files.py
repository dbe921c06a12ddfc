"""Files of every format that is parsed in this process. A target raises for a fault only."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from canbroker.errors import CanInitializationError
from canbroker.logs.formats import open_reader
from canbroker.model.frame import frame_fault


def reading(kind: str) -> Callable[[bytes], None]:
    """A target: whatever a file is, its frames are valid, or the error names the file."""

    def read(data: bytes) -> None:
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
