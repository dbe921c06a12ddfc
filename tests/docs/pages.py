"""The fenced blocks of the documentation, in order, and how each is to be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: Pages with snippets. Golden vectors of the protocol have tests of their own; the design notes
#: show no code to run.
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in DOCS.rglob("*.md")
    if page.parent.name != "design" and page.name != "protocol.md"
)

_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*?) -->\n)?"
    r"```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)```",
    flags=re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """``title``: the file that it is. ``background``: it runs until the page ends."""

    language: str
    text: str
    title: str | None
    background: bool


def blocks(page: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer((DOCS / page).read_text()):
        note = match["note"]
        assert note in {None, "in the background"}, f"{page}: what does {note!r} mean?"
        found.append(Block(match["language"], match["text"], match["title"], note is not None))
    return found
