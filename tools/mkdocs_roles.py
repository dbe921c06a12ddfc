"""A hook of MkDocs: docstrings in the notation of Sphinx, on pages that are Markdown.

Roles (:class:`Bus`) become code, and the two colons before a block one, or none.
"""

from __future__ import annotations

import re
from typing import Final

_ROLE: Final = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]*)</code>")


def on_page_content(html: str, **_: object) -> str:
    """The page as it is to be shown."""
    html = _ROLE.sub(r"<code>\1</code>", html)
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")
