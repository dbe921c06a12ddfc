"""A MkDocs hook: shows docstrings and help texts as their authors meant them.

Docstrings use Sphinx's notation, and the pages are Markdown. Roles (``:class:`Bus```) become code,
and the two colons that announce a block become one, or none. Indented lines in the help texts of
the command line become blocks of code.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final

_ROLE: Final = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]*)</code>")
_WITH_INDENTED_LINES: Final = re.compile(r"<p>([^<]*\n  [^<]*)</p>")


def on_page_content(html: str, **_: object) -> str:
    """The HTML of a page as it should be shown."""
    html = _ROLE.sub(r"<code>\1</code>", html)
    html = _WITH_INDENTED_LINES.sub(_blocks, html)
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def _blocks(paragraph: re.Match[str]) -> str:
    """Separates a paragraph's indented lines, which are code, from its text."""
    shown = []
    for indented, lines in groupby(paragraph[1].split("\n"), lambda line: line.startswith("  ")):
        text = "\n".join(line.removeprefix("  ") for line in lines)
        shown.append(f"<pre><code>{text}\n</code></pre>" if indented else f"<p>{text}</p>")
    return "\n".join(shown)
