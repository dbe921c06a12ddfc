"""Draws a terminal as SVG, for the other tools."""

from __future__ import annotations

from html import escape
from typing import Final

from rich.console import Console

#: Rich's own format loads a font from another host, and says nothing to screen readers.
_FORMAT: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
     aria-labelledby="title description">
<title id="title">TITLE</title>
<desc id="description">DESCRIPTION</desc>
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
<g transform="translate({terminal_x}, {terminal_y})"
   clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def terminal_svg(console: Console, name: str, command: str, title: str, description: str) -> str:
    """What ``console`` has recorded, as the terminal of ``command``.

    :param name: begins the names in the drawing.
    """
    form = _FORMAT.replace("TITLE", _literal(title)).replace("DESCRIPTION", _literal(description))
    drawn = console.export_svg(title=command, code_format=form, unique_id=name)
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


def _literal(text: str) -> str:
    """A text for XML within a format."""
    return escape(text).replace("{", "{{").replace("}", "}}")
