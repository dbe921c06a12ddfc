"""The exceptions that users catch, grouped by what they do next.

::

    CanError
    ├── CanInterfaceNotImplementedError   choose another interface
    ├── CanInitializationError            fix the configuration or the hardware, open again
    ├── CanOperationError                 the bus is open, this operation failed
    │   └── CanLossError                  frames were lost on the way here; go on
    └── CanTimeoutError                   try again, or wait longer

The names and their meaning are the ones python-can documents, so that ``except`` clauses of
existing scripts go on working.
"""

from __future__ import annotations


class CanError(Exception):
    """Base of everything that canbroker raises on purpose.

    :param message: a sentence that names what went wrong and where.
    :param error_code: the driver's or the protocol's number for it, if there is one.
    """

    def __init__(self, message: str = "", error_code: int | None = None) -> None:
        super().__init__(message if error_code is None else f"{message} [Error Code {error_code}]")
        self.error_code = error_code


class CanInterfaceNotImplementedError(CanError, NotImplementedError):
    """The interface is unknown, or was not named at all."""


class CanInitializationError(CanError):
    """A bus could not be opened: device, parameters, configuration or broker."""


class CanOperationError(CanError):
    """An open bus could not do what was asked."""


class CanLossError(CanOperationError):
    """Frames were lost on their way to a bus with ``on_loss="raise"``, which goes on behind them.

    ``first`` is the number of the first one in the ``epoch`` of the channel. ``count`` is
    ``None`` if nobody knows how many there were: the channel's process was replaced. ``cause``
    says why in words.
    """

    def __init__(self, epoch: int, first: int, count: int | None, cause: str) -> None:
        numbers = f"from number {first} of epoch {epoch} on"
        super().__init__(f"{'frames' if count is None else count} lost {numbers}: {cause}")
        self.epoch = epoch
        self.first = first
        self.count = count
        self.cause = cause


class CanTimeoutError(CanError, TimeoutError):
    """Something did not happen within the time the caller gave it."""
