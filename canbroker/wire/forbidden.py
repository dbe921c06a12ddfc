"""What a gateway adds to a refusal: whose key does not have the right."""

from __future__ import annotations

from typing import Annotated

import msgspec

from canbroker.errors import CanPermissionError

#: Names of keys are shorter; this is for what other peers send.
_Text = Annotated[str, msgspec.Meta(max_length=256)]


class Forbidden(msgspec.Struct, frozen=True, kw_only=True):
    """The key ``name`` has ``role``, and may not do this.

    ``identifier``: the one that it may not transmit, if that is the reason.
    """

    name: _Text
    role: _Text
    identifier: int | None = None

    def error(self, sentence: str) -> CanPermissionError:
        """What the refused client raises, with this text."""
        return CanPermissionError(sentence, self.name, self.role, self.identifier)
