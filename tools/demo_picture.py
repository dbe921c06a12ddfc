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

_PICTURE: Final = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
_COMMAND: Final = "canbroker demo"
_COLUMNS: Final = 100

#: Rich's own format loads a font from another host, and says nothing to screen readers.
_FORMAT: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
     aria-labelledby="title description">
<title id="title">canbroker demo at work</title>
<desc id="description">The output of canbroker demo. A simulated adapter replays a car's traffic;
five processes with different filters share it. At the end a ledger compares the frames that each
process should have received with the frames that it did receive: none is lost.</desc>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


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
    drawn = console.export_svg(title=_COMMAND, code_format=_FORMAT, unique_id="demo")
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


if __name__ == "__main__":
    sys.exit(main())
