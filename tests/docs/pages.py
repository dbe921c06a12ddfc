"""The fenced blocks of the documentation, in order, and how each is to be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: All pages but the design notes, which show no code to run.
PAGES = sorted(
    page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if page.parent.name != "design"
)

#: The pages that the documentation's menu has, in its order.
NAVIGATION = re.findall(r"- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)

#: Its blocks are golden vectors, which ``tests/unit/wire/test_golden.py`` compares and decodes.
GOLDEN = "protocol.md"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)

#: Whatever a reader would see as a block: fences, also indented ones and those of tildes.
_FENCE = re.compile(r"^\s*(?:```|~~~)", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """``title``: the file that it is. ``background``: it runs until the page ends."""

    language: str
    text: str
    title: str | None
    background: bool


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def fences(page: str) -> int:
    return len(_FENCE.findall(text_of(page)))


def blocks(page: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(text_of(page)):
        note = match["note"]
        assert note in {None, "in the background"}, f"{page}: what does {note!r} mean?"
        found.append(Block(match["language"], match["text"], match["title"], note is not None))
    return found
