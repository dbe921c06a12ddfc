"""Packages that are not to be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def without(package: str) -> Iterator[None]:
    """Within the block, a package cannot be imported, unless it has been already.

    For an optional package that another one imports if it is installed, and that nothing of this
    process uses. Affects all threads.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = cast(ModuleType, None)  # documented: then an import fails
    try:
        yield
    finally:
        del sys.modules[package]
