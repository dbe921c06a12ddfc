"""Standard output and error, whatever their encoding, on a full disk, with a closed reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Final

from canbroker.system.descriptors import is_closed_pipe

#: What writing raises where nothing can be written, or nothing more.
_UNWRITABLE: Final = frozenset({errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


def escape_unencodable() -> None:
    """Writes characters that the encoding of an output lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """:raises OSError: what was printed has not arrived."""
    if sys.stdout is not None:  # it is, where the process was started without one
        sys.stdout.flush()


def problem(error: OSError) -> str | None:
    """The message for an ``error`` of the standard output; none if its reader has closed it.

    What was not written is discarded. Otherwise Python would complain again when it exits.

    :raises OSError: ``error``, if it is another one.
    """
    is_closed = is_closed_pipe(error)
    if not (is_closed or error.errno in _UNWRITABLE) or error.filename is not None:
        raise error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if is_closed:
        return None
    return f"cannot write to standard output: {error.strerror}"
