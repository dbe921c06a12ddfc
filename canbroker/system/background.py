"""Starts processes that outlive the one that starts them, and inherit nothing from it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Final, TextIO

from canbroker.system.descriptors import pipe

_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2

_logger = logging.getLogger(__name__)


def start(command: Sequence[str], log: IO[bytes]) -> TextIO:
    """Starts a process in the background; returns what it says, see :func:`answers`.

    :param log: gets what it writes to standard error.
    :raises OSError: it cannot be started.
    """
    said, saying = pipe()
    try:
        _start(command, saying, log)
    except OSError:
        os.close(said)
        raise
    finally:
        os.close(saying)
    return open(said, encoding="utf-8")  # noqa: PTH123 - a descriptor


def answers() -> TextIO:
    """[started process] Where to say how the start went; close it soon. From now on, what is
    written to standard output goes to standard error."""
    saying = os.dup(_STANDARD_OUTPUT)
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    return open(saying, "w", encoding="utf-8")  # noqa: PTH123 - a descriptor


if sys.platform == "win32":
    #: A flag of :class:`subprocess.Popen`: the process has no console that would show.
    NO_WINDOW: Final = subprocess.CREATE_NO_WINDOW

    def _start(command: Sequence[str], output: int, log: IO[bytes]) -> None:
        try:
            _start_detached(command, output, log, subprocess.CREATE_BREAKAWAY_FROM_JOB)
        except PermissionError:  # the job of this process keeps its processes
            _start_detached(command, output, log, 0)
            _logger.warning(
                "the broker is in the job of the program that has started it, and may end with it; "
                "one that 'canbroker serve' starts does not"
            )

    def _start_detached(command: Sequence[str], output: int, log: IO[bytes], flags: int) -> None:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            creationflags=NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP | flags,
        )
        process.returncode = 0  # nobody waits for it

else:
    NO_WINDOW: Final = 0

    def _start(command: Sequence[str], output: int, log: IO[bytes]) -> None:
        """A shell in between makes the process an orphan at once: this process would have to wait
        for a child."""
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            start_new_session=True,
            check=True,
        )
