"""What all long-running processes of canbroker share: exit codes, signals, the log."""

from __future__ import annotations

import enum
import logging
import signal
import sys
from typing import Final

from canbroker.model.wording import printable
from canbroker.system.throttle import ForeignRecords
from canbroker.system.wake import Wake


class Exit(enum.IntEnum):
    """The exit codes of canbroker's processes."""

    OK = 0
    CRASHED = 70  # a bug; the traceback is in the log (EX_SOFTWARE of sysexits.h)
    REFUSED = 78  # it could not start with this specification (EX_CONFIG)


def set_up_logging(level: str, name: str) -> None:
    """Logs to standard error, with ``name`` in every line. Limits the records of other packages."""
    escaped = name.replace("%", "%%")
    line = f"%(asctime)s %(levelname)s {escaped} %(name)s: %(message)s"
    set_up_one_line(line, level.upper(), ForeignRecords())


def ending_signals() -> list[signal.Signals]:
    """The signals that ask a process to end: Ctrl-C, SIGTERM, SIGHUP (POSIX) and Ctrl-Break
    (Windows, where SIGTERM never arrives).

    Without a SIGHUP that is ignored: ``nohup`` asks for that.
    """
    named = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")]
    return [
        number
        for number in named
        if number is not None and (number in _ALWAYS or signal.getsignal(number) != signal.SIG_IGN)
    ]


def ignore_terminal() -> None:
    """Ignores what a terminal sends to all of its processes; somebody else decides their end."""
    for number in ending_signals():
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


class Terminated:
    """Becomes readable when one of ``signals`` arrives: handlers only note it, loops act."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._wake = Wake()
        if sys.platform == "win32":  # a handler does not run there before libzmq has waited
            signal.set_wakeup_fd(self._wake.sending(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: self._wake.set())

    def fileno(self) -> int:
        return self._wake.fileno()


_ALWAYS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class _OneLine(logging.Formatter):
    """Makes a record :func:`printable`; a traceback follows unchanged."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def set_up_one_line(line: str, level: int | str, *filters: logging.Filter) -> None:
    """Makes this process log to standard error, in lines of this format (``%(message)s``)."""
    handler = logging.StreamHandler(sys.stderr)
    for each in filters:
        handler.addFilter(each)
    handler.setFormatter(_OneLine(line))
    logging.basicConfig(handlers=[handler], level=level)
