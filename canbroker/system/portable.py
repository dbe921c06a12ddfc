"""Whether this process uses what every system has, or what only Linux has. Decided here, once.

Each module of this package that differs has a native and a portable side, and chooses by
:data:`PORTABLE`. Everything else asks those modules.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from canbroker.errors import CanInitializationError

#: 1 selects the portable sides on Linux, to test them. Programs that share a broker need the same
#: value.
PORTABLE_VARIABLE: Final = "CANBROKER_PORTABLE"


def is_portable(platform: str, variable: str | None) -> bool:
    """Whether to use the portable sides.

    :param platform: as :data:`sys.platform`; only Linux has the native sides.
    :param variable: value of the environment variable, ``None`` if it is not set.
    :raises CanInitializationError: the value is neither 0 nor 1.
    """
    if variable not in {None, "", "0", "1"}:
        raise CanInitializationError(f"{PORTABLE_VARIABLE} is {variable!r}; it must be 0 or 1")
    return platform != "linux" or variable == "1"


#: Whether the portable sides are used.
PORTABLE: Final = is_portable(sys.platform, os.environ.get(PORTABLE_VARIABLE))
