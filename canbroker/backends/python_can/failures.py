"""Maps the exceptions of drivers to one error, and tells its meaning."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import can

from canbroker.backends.python_can.known import Driver, Meaning

#: What the system says when a device has been unplugged, a descriptor or a connection closed.
_GONE: Final = frozenset(
    {
        *(errno.ENODEV, errno.ENXIO, errno.EIO, errno.EBADF, errno.ENOTCONN),
        *(errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN),
    }
)

#: What the system says when a transmit queue has no room.
_FULL: Final = frozenset({errno.ENOBUFS, errno.EAGAIN})

_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")

#: Some drivers put a whole traceback into the text of their exception.
_TRACEBACK: Final = re.compile(r"\s*Traceback \(most recent call last\).*", re.DOTALL)


class DriverError(Exception):
    """A driver raised an exception. ``fatal``: retrying is pointless."""

    def __init__(self, doing: str, error: BaseException) -> None:
        super().__init__(f"{doing} failed: {told(error)}")
        causes = list(_causes(error))
        self._errnos = {getattr(cause, "errno", None) for cause in causes}
        self._codes = [getattr(cause, "error_code", None) for cause in causes]
        self._timed_out = isinstance(error, can.CanTimeoutError)
        self.fatal = not self._errnos.isdisjoint(_GONE)

    def meaning(self, driver: Driver) -> Meaning:
        """The meaning of the error from this driver; not every error can be understood."""
        if self.fatal:
            return Meaning.GONE
        text = str(self).lower()
        for pattern, meaning in driver.texts:
            if pattern in text:
                return meaning
        for code in self._codes:
            if isinstance(code, int) and code in driver.codes:
                return driver.codes[code]
        if not self._errnos.isdisjoint(_FULL):
            return Meaning.FULL
        # For most drivers a timeout of `send` limits the wait for the acknowledgement.
        return Meaning.LATE if self._timed_out else Meaning.UNKNOWN


@contextmanager
def foreign(doing: str) -> Iterator[None]:
    """Maps what a driver raises while ``doing``; a plugin may raise anything at all.

    Only for threads that serve drivers: it also maps SystemExit.

    :raises DriverError: whatever was raised.
    """
    try:
        yield
    except BaseException as error:
        raise DriverError(doing, error) from error


def told(error: BaseException) -> str:
    """Type and text of a foreign exception and of its causes, in one line.

    System error numbers are left out, and so are causes that the text quotes already.
    """
    words = _words(error)
    for cause in _causes(error.__cause__):
        text = _words(cause)
        if text.partition(": ")[2] not in words or words == type(error).__name__:
            words = f"{words}: {text}"
    return words


def _words(error: BaseException) -> str:
    text = _TRACEBACK.sub("", f"{type(error).__name__}: {error}")
    return " ".join(_ERRNO.sub("", text).split()).removesuffix(":")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
