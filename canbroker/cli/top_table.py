"""The table of ``canbroker top``: draws the rows that are visible, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from canbroker.cli.top_rows import DATA_AT, Shown, data_cells, fixed_cells

_PLAIN: Final = Style()
_CHANGED: Final = Style(bold=True, reverse=True)
_CURSOR: Final = Style(bold=True, underline=True)
_FROZEN: Final = Style(italic=True, color="cyan")
_SENT: Final = Style(color="green")


class FrameTable(ScrollView, can_focus=True):
    """Rows of fixed columns, with a cursor that stays on its row."""

    DEFAULT_CSS = """
    FrameTable { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; overflow-y: auto; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[Shown] = ()
        self._key: int | None = None  # of the row with the cursor
        self._cursor = 0  # the place of that row

    @property
    def current(self) -> Shown | None:
        """The row with the cursor."""
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[Shown]) -> None:
        """Draws these rows; the cursor goes where its row is."""
        self._rows = rows
        places = (at for at, row in enumerate(rows) if row.key == self._key)
        self._cursor = next(places, min(self._cursor, max(0, len(rows) - 1)))
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def move(self, by: int) -> None:
        """Moves the cursor, and scrolls so that it is visible."""
        if not self._rows:
            return
        at = max(0, min(len(self._rows) - 1, self._cursor + by))
        self._cursor, self._key = at, self._rows[at].key
        top, height = self.scroll_offset.y, self.size.height
        if not top <= at < top + height:
            self.scroll_to(y=at if at < top else at - height + 1, animate=False)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """As of Textual's line API: line ``y`` of the window."""
        width = self.size.width
        at = y + self.scroll_offset.y
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[at]
        base = self.rich_style + _style_of(row) + (_CURSOR if at == self._cursor else _PLAIN)
        segments = [Segment(f"{fixed_cells(row)} ", base)]
        segments += [
            Segment(text[:2], base + _CHANGED) if has_changed else Segment(text, base)
            for text, has_changed in _spaced(data_cells(row, width - DATA_AT))
        ]
        return Strip(segments).adjust_cell_length(width, base)


def _style_of(row: Shown) -> Style:
    if row.is_frozen:
        return _FROZEN
    return _SENT if row.is_sent else _PLAIN


def _spaced(cells: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The space behind a byte that has changed is a cell of its own."""
    spaced: list[tuple[str, bool]] = []
    for text, has_changed in cells:
        spaced.append((text, has_changed))
        if has_changed:
            spaced.append((text[2:], False))
    return spaced
