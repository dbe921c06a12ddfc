"""Commands of canbroker, as users run them."""

from __future__ import annotations

import subprocess
from typing import Final

from canbroker.system.entry_points import EntryPoint

_PATIENCE_S: Final = 30.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``canbroker`` with these arguments, which ends by itself."""
    return subprocess.run(
        EntryPoint.COMMAND.command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
