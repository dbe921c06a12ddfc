"""Where something is in a TOML document."""

from __future__ import annotations

import pytest

from canbroker.system import toml_file

DOCUMENT = """\
title = "x"  # comment
[ a . "b.c" ]   # spaced, quoted
key = [
  1,
]
text = '''
no header
'''
d.e = { f = 1 }
[[list]]
name = "first"
[a]
late = true
"""


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("title",), 1),
        (("a", "b.c"), 2),
        (("a",), 2),
        (("a", "b.c", "key"), 3),
        (("a", "b.c", "d", "e"), 9),
        (("a", "b.c", "d", "e", "f"), 9),
        (("list",), 10),
        (("list", "name"), 11),
        (("a", "late"), 13),
        (("a", "b"), None),
        (("name",), None),
        ((), None),
    ],
)
def test_the_line_of_a_key_path(keys: tuple[str, ...], line: int | None) -> None:
    assert toml_file.line_of(DOCUMENT, keys) == line
