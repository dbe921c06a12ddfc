"""The choice between the native and the portable sides of :mod:`canbroker.system`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from canbroker.errors import CanInitializationError
from canbroker.system.portable import is_portable

_SHOW = "from canbroker.system.portable import PORTABLE; print(PORTABLE)"


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", None, False),
        ("linux", "", False),
        ("linux", "0", False),
        ("linux", "1", True),
        ("win32", None, True),
        ("darwin", "0", True),
    ],
)
def test_only_linux_is_native(platform: str, variable: str | None, expected: bool) -> None:
    assert is_portable(platform, variable) is expected


def test_another_value_is_refused_by_name() -> None:
    with pytest.raises(CanInitializationError, match=r"CANBROKER_PORTABLE is 'yes'"):
        is_portable("linux", "yes")


def test_the_environment_decides() -> None:
    environment = {**os.environ, "CANBROKER_PORTABLE": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", _SHOW], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "True\n"
