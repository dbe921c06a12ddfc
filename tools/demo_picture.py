"""Draws ``docs/images/demo.svg``: a terminal with what ``canbroker demo`` prints.

Run it again when the demonstration prints something else::

    .venv/bin/python tools/demo_picture.py
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text
from terminal_picture import terminal_svg

_PICTURE: Final = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
_COMMAND: Final = "canbroker demo"
_COLUMNS: Final = 100

_DESCRIPTION: Final = """\
The output of canbroker demo. A simulated adapter replays a car's traffic;
five processes with different filters share it. At the end a ledger compares the frames that each
process should have received with the frames that it did receive: none is lost."""


def main() -> int:
    """Runs the demonstration and draws its output; its exit status is the script's."""
    done = subprocess.run(
        [sys.executable, "-m", "canbroker.cli", "demo"],
        env={**os.environ, "COLUMNS": str(_COLUMNS)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    if done.returncode == 0:
        _PICTURE.write_text(picture(done.stdout))
    return done.returncode


def picture(output: str) -> str:
    """An SVG of a terminal that shows the command and its output."""
    lines = [line.rstrip() for line in output.splitlines()]
    console = Console(record=True, file=io.StringIO(), width=max(map(len, lines)))
    console.print(f"$ {_COMMAND}", style="bold")
    for line in lines:
        text = Text(line)
        text.highlight_words(["exact"], style="green")
        console.print(text, soft_wrap=True)
    return terminal_svg(console, "demo", _COMMAND, f"{_COMMAND} at work", _DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
