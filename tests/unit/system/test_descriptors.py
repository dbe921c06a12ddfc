"""What the system says of descriptors."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from canbroker.system.descriptors import is_closed_pipe


def test_a_pipe_that_nobody_reads_is_closed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number differs
            os.write(writing, b"x")
    finally:
        os.close(writing)
    assert is_closed_pipe(caught.value)
    assert not is_closed_pipe(OSError(errno.ENOSPC, "full"))


def test_windows_calls_a_closed_pipe_an_invalid_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = OSError(errno.EINVAL, "invalid argument")
    assert is_closed_pipe(invalid) == (sys.platform == "win32")
    monkeypatch.setattr(sys, "platform", "win32")
    assert is_closed_pipe(invalid)
    invalid.winerror = 10022  # type: ignore[attr-defined, unused-ignore] # of a socket
    assert not is_closed_pipe(invalid)
