"""Packages that people use with python-can, used with canbroker: ``make ecosystem``.

Without them every module here is skipped, and pytest, asked for these modules alone, fails.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import pytest

PACKAGES: Final = ("asammdf", "cantools", "canopen", "isotp", "udsoncan")

_missing = [package for package in PACKAGES if find_spec(package) is None]
if _missing:
    pytest.skip(
        f"not installed: {', '.join(_missing)}; `make ecosystem` does it", allow_module_level=True
    )
