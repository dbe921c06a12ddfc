"""Whether the packages are there that the web page needs."""

from __future__ import annotations

import importlib.util
from typing import Final

from canbroker.errors import CanInitializationError

_PACKAGES: Final = ("starlette", "uvicorn", "websockets", "prometheus_client")


def check_installed() -> None:
    """:raises CanInitializationError: a package is missing; names the extra that has it."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise CanInitializationError(
                f"the web page needs the package {package}: pip install 'canbroker[web]'"
            )
