"""The files that a broker writes for its successor, in case it is killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from canbroker.wire import DECODE_ERRORS

_Entry = TypeVar("_Entry", bound=msgspec.Struct)
_logger = logging.getLogger(__name__)


def write(path: Path, entries: Sequence[msgspec.Struct]) -> None:
    """Replaces the file in one step, so that no reader sees half of it.

    An error, such as a full disk, is only logged: nobody but a killed broker's successor needs the
    file.
    """
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(msgspec.json.encode(entries))
        fresh.replace(path)
    except OSError:
        _logger.exception("cannot write %s", path)


def remove(path: Path) -> None:
    """Removes the file, which means that there are no entries."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        _logger.exception("cannot remove %s", path)


def read(path: Path, kind: type[_Entry]) -> list[_Entry]:
    """The entries that a predecessor has written; if they cannot be read, none, and a warning."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except FileNotFoundError:
        return []
    except (OSError, *DECODE_ERRORS) as error:
        _logger.warning("%s is not readable: %s", path, error)
        return []
