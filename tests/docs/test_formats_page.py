"""The page about file formats has the table of the code."""

from __future__ import annotations

from canbroker.logs.formats import FORMATS
from tests.docs.format_table import PAGE, lines, written


def test_the_table_of_formats_is_that_of_the_code() -> None:
    page = PAGE.read_text()
    assert written(page) == page, "run python -m tests.docs.format_table"
    assert len(list(lines())) == len(FORMATS) + 2
    for line in lines():
        assert line in page
