"""The exceptions that users catch, grouped by what a program can do about them.

::

    CanError
    ├── CanInterfaceNotImplementedError   choose another interface
    ├── CanInitializationError            fix the configuration or the hardware, open again
    ├── CanOperationError                 the bus is open, this operation failed
    │   ├── CanLossError                  frames were lost on the way here; continue
    │   └── CanPermissionError            your key does not have the right: ask the bench's admin
    └── CanTimeoutError                   try again, or wait longer

Names and meanings are those that python-can documents, so ``except`` clauses in existing scripts
keep working.
"""

from __future__ import annotations


class CanError(Exception):
    """Base class of all exceptions that canbroker raises on purpose.

    :param message: a sentence that says what went wrong and where.
    :param error_code: the driver's or the protocol's number for the error, if there is one.
    """

    def __init__(self, message: str = "", error_code: int | None = None) -> None:
        super().__init__(message if error_code is None else f"{message} [Error Code {error_code}]")
        self.error_code = error_code


class CanInterfaceNotImplementedError(CanError, NotImplementedError):
    """The interface is unknown, or no interface was given."""


class CanInitializationError(CanError):
    """A bus could not be opened, because of its device, parameters, configuration or broker."""


class CanOperationError(CanError):
    """An open bus could not do what was asked."""


class CanLossError(CanOperationError):
    """Frames were lost on their way to a bus with ``on_loss="raise"``, which continues after them.

    ``first`` is the number of the first lost frame in the ``epoch`` of the channel. ``count`` is
    ``None`` if their number is unknown, because the channel's process was replaced. ``cause`` is
    the reason in words.
    """

    def __init__(self, epoch: int, first: int, count: int | None, cause: str) -> None:
        numbers = f"from number {first} of epoch {epoch} on"
        super().__init__(f"{'frames' if count is None else count} lost {numbers}: {cause}")
        self.epoch = epoch
        self.first = first
        self.count = count
        self.cause = cause


class CanPermissionError(CanOperationError, CanInitializationError):
    """The broker is remote, and this program's key does not have the right to do this.

    Raised by the call that was refused, so opening a bus raises it, too: it is both, an error of
    opening and of an open bus, and ``except`` clauses for either catch it. Trying again is of no
    use until the bench's admin has changed the key's entry.

    ``name`` and ``role`` are those of the key on the bench. ``identifier`` is the arbitration id
    that it may not transmit, ``None`` if it lacks another right.
    """

    def __init__(
        self, message: str = "", name: str = "", role: str = "", identifier: int | None = None
    ) -> None:
        super().__init__(message)
        self.name = name
        self.role = role
        self.identifier = identifier


class CanTimeoutError(CanError, TimeoutError):
    """An operation did not finish within the timeout that the caller set."""
