"""``python -m tests.docs.format_table`` writes the table of file formats into its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from canbroker.logs.formats import FORMATS

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"

_TABLE: Final = re.compile(r"^\| format \|.*?(?=^$)", flags=re.DOTALL | re.MULTILINE)


def lines() -> Iterator[str]:
    """The lines of the table, in Markdown."""
    yield "| format | suffixes | needs | after a kill | cannot hold |"
    yield "|---|---|---|---|---|"
    for form in FORMATS.values():
        suffixes = " ".join(f"`{suffix}`" for suffix in form.suffixes)
        more = " `.gz`" if form.gzip else ""
        needs = f"`canbroker[{form.needs.extra}]`" if form.needs else ""
        survives = "readable" if form.survives else "not readable"
        lacking = "; ".join(form.holds.lacking)
        yield f"| {form.title} | {suffixes}{more} | {needs} | {survives} | {lacking} |"


def table() -> str:
    return "\n".join(lines()) + "\n"


def written(page: str) -> str:
    """The page with the table as it is now."""
    return _TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
