"""Draws ``docs/images/signal.png``: runs the guide that shows it, and keeps what that has drawn.

Run it again when ``docs/guides/recording.md`` has changed; needs the extras of ``make ecosystem``::

    .venv/bin/python tools/signal_picture.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_DOCS: Final = Path(__file__).parents[1] / "docs"
_BLOCK: Final = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND: Final = re.compile(
    r"^(?:canbroker (?:dump|record virtual|convert).*|python plot\.py)$", re.MULTILINE
)


def main() -> int:
    """Runs the guide up to the picture, with a broker of its own."""
    text = (_DOCS / "guides" / "recording.md").read_text()
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as place:  # short, for sockets
        for name, content in _BLOCK.findall(text):
            Path(place, name).write_text(content)
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": place,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with subprocess.Popen([sys.executable, "car.py"], cwd=place, env=environment) as car:
            try:
                for command in _COMMAND.findall(text):
                    subprocess.run(
                        ["/bin/bash", "-euc", command], cwd=place, env=environment, check=True
                    )
            finally:
                car.terminate()
        shutil.copy(Path(place, "speed.png"), _DOCS / "images" / "signal.png")
        subprocess.run(
            [sys.executable, "-m", "canbroker.cli", "stop"], env=environment, check=False
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
