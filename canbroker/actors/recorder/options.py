"""What a recording is told to do: a ``[record.NAME]`` table, or the options of a command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from canbroker.actors.recorder.trigger import needed
from canbroker.errors import CanInitializationError
from canbroker.logs.candump import parse_dump_filters
from canbroker.model.filters import EVERYTHING, FilterSet, union
from canbroker.model.wording import validation_fault
from canbroker.wire.topics import route_topic

#: More than a year, or a petabyte: a mistake.
_MOST_S: Final = 366 * 86_400
_MOST_MB: Final = 1 << 30

#: No bench has more buses.
MAX_CHANNELS: Final = 64

#: How long a channel holds the route of a recorder that is gone: as long as its ring keeps frames,
#: unless configured otherwise.
HOLD_S: Final = 60.0


def holder_of(recording: str) -> str:
    """What the recorder of a recording is called as the holder of a route."""
    return f"recording {recording}"


class RecordOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The options of a recording.

    ``channels``: the broker's names; with ``interface``, that interface's own names, opened with
    ``parameters``. ``directory``: where its files are, made if it is missing. ``format``: a name or
    a suffix of a file format. A file is followed by another one after ``rotate_mb`` MiB or
    ``rotate_s`` seconds; ``keep_mb``: the oldest files of the recording are removed when all
    together have more MiB. ``filters``: in candump's notation; a frame that passes one is recorded.
    ``separate``: a file for each channel instead of one for all. With ``trigger`` only what is on
    the channels from ``before_s`` before to ``after_s`` after it is recorded; ``database``: a file
    with the signals that it names.
    """

    channels: list[str]
    directory: str
    format: str = "log"
    rotate_mb: float | None = None
    rotate_s: float | None = None
    keep_mb: float | None = None
    filters: list[str] = []
    separate: bool = False
    trigger: str = ""
    before_s: float = 10.0
    after_s: float = 10.0
    database: str = ""
    interface: str | None = None
    parameters: dict[str, str | int | float | bool | None] = {}

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= MAX_CHANNELS:
            raise ValueError(f"channels must be a list of 1 to {MAX_CHANNELS}")
        if len(set(self.channels)) < len(self.channels) or not all(self.channels):
            raise ValueError("channels must all have a name, and each another one")
        if not self.directory or "\0" in self.directory:
            raise ValueError(f"directory must be a path, got {self.directory!r}")
        for name, most in (("rotate_mb", _MOST_MB), ("rotate_s", _MOST_S), ("keep_mb", _MOST_MB)):
            number = getattr(self, name)
            if number is not None and not 0 < number <= most:
                raise ValueError(f"{name} must be above 0 and at most {most:,}, got {number}")
        for name in ("before_s", "after_s"):
            number = getattr(self, name)
            if not 0 <= number <= _MOST_S:
                raise ValueError(f"{name} must be 0 to {_MOST_S:,}, got {number}")
        if self.database and not self.trigger:
            raise ValueError("database is for the signals of a trigger, and there is none")
        try:
            if self.trigger:
                needed(self.trigger)
        except ValueError as error:
            raise ValueError(f"trigger: {error}") from error
        try:
            self.filter_set()
        except ValueError as error:
            raise ValueError(f"filters: {error}") from error

    def filter_set(self) -> FilterSet:
        """The frames to record."""
        return parse_dump_filters(",".join(self.filters)) if self.filters else EVERYTHING

    def subscribed(self) -> FilterSet:
        """The frames to receive: to record, or to look for the trigger."""
        wanted = self.filter_set()
        return union((wanted, needed(self.trigger))) if self.trigger else wanted

    def topic(self, channel: str) -> bytes | None:
        """The route that is recorded of a channel; ``None`` if that is not recorded.

        :param channel: the broker's name for it.
        """
        ours = {f"{self.interface}.{name}" for name in self.channels}
        known = self.channels if self.interface is None else ours
        return route_topic(channel, self.subscribed()) if channel in known else None

    def resolved(self, directory: Path) -> Self:
        """With paths that are relative to ``directory`` made absolute."""
        database = str(directory / self.database) if self.database else ""
        return msgspec.structs.replace(
            self, directory=str(directory / self.directory), database=database
        )


def parse_options(given: Mapping[str, Any]) -> RecordOptions:
    """The options of a request.

    :raises CanInitializationError: an unknown or invalid option; the message names it.
    """
    try:
        return msgspec.convert(given, RecordOptions)
    except msgspec.ValidationError as error:
        raise CanInitializationError(validation_fault(error, given)) from error
