"""Packages that are installed only with an extra of canbroker."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from canbroker.errors import CanInitializationError


class Needs(NamedTuple):
    """A package that has to be installed, and the extra of canbroker that does it."""

    package: str
    extra: str

    @property
    def is_there(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def check(self, what: str) -> None:
        """:raises CanInitializationError: it is not installed; ``what`` needs it."""
        if not self.is_there:
            raise CanInitializationError(
                f"{what} needs the package {self.package}: pip install 'canbroker[{self.extra}]'"
            )
