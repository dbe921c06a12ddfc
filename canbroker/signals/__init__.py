"""Signals: what databases (DBC, KCD, SYM, ARXML) say of the data of frames.

Importing this does not import cantools, which is an extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from canbroker.system.extras import Needs

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder


def check_installed(what: str) -> None:
    """:raises CanInitializationError: cantools is not installed; ``what`` needs it."""
    Needs("cantools", "signals").check(what)


def load_databases(paths: Iterable[Path | str]) -> Decoder:
    """A decoder for the messages of files; of two messages for one frame, the first one counts.

    :raises CanInitializationError: cantools is not installed, or a file cannot be read or is not a
        database; names it.
    """
    check_installed("decoding signals")
    from canbroker.signals.decoder import Decoder  # noqa: PLC0415 - of an extra

    return Decoder.joined([Decoder.load(Path(path)) for path in paths])
