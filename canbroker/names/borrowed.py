"""Names that are python-can's own, handed on where it is installed."""

from __future__ import annotations

import importlib
from typing import Any


def from_python_can(name: str, module: str = "can") -> Any:
    """What python-can calls ``name`` in ``module``; importing it takes half a second.

    :raises ImportError: python-can is not installed; the message names the extra.
    :raises AttributeError: it has no such name.
    """
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "can":
            raise
        raise ImportError(
            f"{name} is python-can's, which is not installed: pip install canbroker[python-can]"
        ) from None
    return getattr(found, name)
