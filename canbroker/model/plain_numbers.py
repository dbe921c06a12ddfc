"""Numbers of NumPy, which a program that computes has in its hands, as Python's own."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """A number, truth value or text of NumPy's as Python's own; anything else as it is.

    NumPy's integers and truth values are not ``int`` or ``bool``, cannot be sent, and overflow
    where seconds become nanoseconds. NumPy is not imported: it need not be there.
    """
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value
