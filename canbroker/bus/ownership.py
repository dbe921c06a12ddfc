"""What all objects that must be closed have in common: buses, leases, tasks, notifiers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn, SupportsIndex

_logger = logging.getLogger("canbroker.bus")


class Uncopyable:
    """Refuses to be copied or pickled: the end of a copy would be that of the original."""

    def __reduce_ex__(self, _: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, as it has connections open; "
            "make a new one"
        )


def end_block(
    end: Callable[[], object], error: BaseException | None, reports: type[Exception]
) -> None:
    """Calls ``end`` at the end of a ``with`` block, which has raised ``error`` if that is given.

    An exception of the type ``reports`` then becomes a note of ``error``, which came first.
    """
    try:
        end()
    except reports as report:
        if error is None:
            raise
        add_report(error, report)


def add_report(error: BaseException, report: Exception) -> None:
    """Adds what the end of the block has reported as a note to ``error``, and logs it."""
    error.add_note(f"Then closing reported: {type(report).__name__}: {report}")
    _logger.warning("at the end of a with block that has failed: %s", report)
