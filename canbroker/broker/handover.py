"""What a broker writes down for its successor, in case it is killed."""

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
    """Replaces the file at once, so that no reader sees half of it.

    A full disk is logged: only a successor of a killed broker would miss the file.
    """
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(msgspec.json.encode(entries))
        fresh.replace(path)
    except OSError:
        _logger.exception("cannot write %s", path)


def remove(path: Path) -> None:
    """No file says that there is nothing."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        _logger.exception("cannot remove %s", path)


def read(path: Path, kind: type[_Entry]) -> list[_Entry]:
    """What a predecessor has written; nothing, and a warning, if it is not readable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[kind])  # type: ignore[valid-type]
    except FileNotFoundError:
        return []
    except (OSError, *DECODE_ERRORS) as error:
        _logger.warning("%s is not readable: %s", path, error)
        return []
