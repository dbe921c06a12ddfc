"""The choice between the native and the portable sides of :mod:`canbroker.system`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import canbroker
from canbroker.errors import CanInitializationError
from canbroker.system.portable import is_portable

#: Where modules may ask for the system: each has a native and a portable side there. Beside these,
#: python-can's files have other names on Windows, as python-can asks ``platform``, too.
_MAY_ASK = ("system/", "backends/socketcan/", "simulator/", "configuration/sources.py")

#: What tells the system: names of modules that differ are asked for in ``system/`` alone.
_ASKS = re.compile(
    r"\bsys\.platform\b|\bos\.name\b|\bplatform\.\w+\(|\b(?:has|get)attr\((?:os|socket|signal|select),"
    r"|\bimport (?:fcntl|grp|msvcrt|pty|pwd|resource|termios|tty|winreg)\b"
)

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


def test_only_these_modules_ask_which_system_it_is() -> None:
    """Comments and strings count, too: there is no reason to name these there."""
    package = Path(canbroker.__file__).parent
    asking = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if _ASKS.search(path.read_text(encoding="utf-8"))
    }
    assert {"system/portable.py", "simulator/terminal.py"} <= asking, "the pattern finds them"
    assert [name for name in sorted(asking) if not name.startswith(_MAY_ASK)] == []
