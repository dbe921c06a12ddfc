"""Why frames were not sent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from canbroker.errors import CanOperationError
from canbroker.wire.forbidden import Forbidden


class Failure(msgspec.Struct, frozen=True):
    """Why a frame was not sent; ``forbidden``: our key does not have the right."""

    text: str
    forbidden: Forbidden | None = None

    def error(self, text: str | None = None) -> CanOperationError:
        """What to raise for it, with its own text or another one."""
        text = self.text if text is None else text
        return CanOperationError(text) if self.forbidden is None else self.forbidden.error(text)


def summary(failures: Sequence[Failure]) -> str:
    """The first one, and how many more there are."""
    return failures[0].text + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else "")
