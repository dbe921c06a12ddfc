"""Whether the packages are there that the web page needs."""

from __future__ import annotations

from typing import Final

from canbroker.system.extras import Needs

_PACKAGES: Final = ("starlette", "uvicorn", "websockets", "prometheus_client")


def check_installed() -> None:
    """:raises CanInitializationError: a package is missing; names the extra that has it."""
    for package in _PACKAGES:
        Needs(package, "web").check("the web page")
