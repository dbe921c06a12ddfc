"""Terminals and serial lines of POSIX. Windows opens a serial port for one program anyway."""

from __future__ import annotations

import os
import sys
from typing import Final

#: Majors of Linux's pseudo-terminals (UNIX98_PTY_SLAVE_MAJOR of linux/major.h, and the seven next)
_PSEUDO_TERMINALS: Final = range(136, 144)

if sys.platform != "win32":
    import fcntl
    import termios

    #: What operations on terminals raise, beside OSError; the system's number comes first.
    ERRORS: Final[tuple[type[Exception], ...]] = (termios.error,)

    def claim(line: int) -> None:
        """Makes the system deny a serial device to other programs; locks are only advisory.

        Pseudo-terminals are left alone: the flag stays until every program has closed them, and
        the program at the other end usually keeps them open.

        :raises OSError: the device does not support it.
        """
        if not _is_pseudo(line):
            fcntl.ioctl(line, termios.TIOCEXCL)

    def share(line: int) -> None:
        """Undoes :func:`claim`.

        :raises OSError: as above.
        """
        if not _is_pseudo(line):
            fcntl.ioctl(line, termios.TIOCNXCL)

    def in_foreground(terminal: int) -> bool:
        """Whether this process is in the foreground of a terminal.

        :raises OSError: it is not a terminal.
        """
        return os.tcgetpgrp(terminal) == os.getpgrp()

    def _is_pseudo(line: int) -> bool:
        return os.major(os.fstat(line).st_rdev) in _PSEUDO_TERMINALS

else:
    ERRORS: Final[tuple[type[Exception], ...]] = ()

    def claim(line: int) -> None:
        """Nothing is left to do."""

    def share(line: int) -> None:
        """Likewise."""

    def in_foreground(terminal: int) -> bool:  # noqa: ARG001
        """Every process of a console is."""
        return True
