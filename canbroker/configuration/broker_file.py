"""The configuration file: TOML to typed, frozen configuration.

::

    [broker]                  # optional
    log_level = "info"

    [channels.body]
    interface = "slcan"       # the rest of the table are parameters of this interface
    channel = "/dev/ttyACM0"
    bitrate = 500000
    pool = "bench"            # optional: programs lease it from this pool
    database = ["car.dbc"]    # optional: what its frames mean

    [remote]                  # optional: programs on other hosts, with keys
    listen = "tcp://*:5655"

The parameters of an interface are checked by ``canbroker.backends.configured``, tables like
``[remote]`` by ``canbroker.actors.sections``.
Every error is a :class:`CanInitializationError` that names file, key path and, where it can be
found, line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.model.wording import validation_fault
from canbroker.system import toml_file
from canbroker.system.toml_file import MAX_FILE_BYTES, Source

#: The sections that are read here.
OWN_SECTIONS: Final = ("broker", "channels")

MAX_NAME_LENGTH: Final = 64

MAX_RING_MB: Final = 4096
MAX_RING_S: Final = 86_400

#: Of one channel; a bus has one database, or a few.
MAX_DATABASES: Final = 16

_Path = Annotated[str, msgspec.Meta(min_length=1)]
_Paths = Annotated[list[_Path], msgspec.Meta(max_length=MAX_DATABASES)]

#: More error frames than a bus of 1 Mbit/s can carry.
MAX_ERROR_RATE: Final = 100_000

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``[broker]`` table.

    ``address`` is where the broker listens; ``None`` means the default. Each channel keeps its
    recent frames for clients that missed some, and for recorders: in ``ring_mb`` MiB of memory, and
    for ``ring_s`` seconds at most. A channel passes on ``error_rate`` error frames a second, and
    the first of each kind; it counts the others. When a channel fails, its last frames are written
    to a file in the format ``record_format``, which is named as those of recordings are.
    """

    address: str | None = None
    log_level: str = "info"
    ring_mb: int = 16
    ring_s: float = 60.0
    error_rate: int = 100
    record_format: str = "log"

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"log_level must be one of {', '.join(LOG_LEVELS)}; got {self.log_level!r}"
            )
        if not 1 <= self.ring_mb <= MAX_RING_MB:
            raise ValueError(f"ring_mb must be 1 to {MAX_RING_MB}, got {self.ring_mb}")
        if not 0 <= self.ring_s <= MAX_RING_S:
            raise ValueError(f"ring_s must be 0 to {MAX_RING_S}, got {self.ring_s}")
        if not 0 <= self.error_rate <= MAX_ERROR_RATE:
            raise ValueError(f"error_rate must be 0 to {MAX_ERROR_RATE}, got {self.error_rate}")


class ChannelConfig(msgspec.Struct, frozen=True):
    """One ``[channels.<name>]`` table; ``parameters`` is the rest of it, unchecked.

    A device's relative path (``channel = "./adapter"``) is relative to the file's directory.
    ``pool`` is the name of the pool that it is leased from, or ``None``. ``databases``: files that
    say what its frames mean, relative to the file's directory; they are read by the broker.
    """

    name: str
    interface: str
    parameters: dict[str, object]
    pool: str | None = None
    databases: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True):
    """A whole configuration file; channels by name, in the order of the file.

    ``sections``: its other tables, which are about kinds of actors. They are checked by
    ``canbroker.actors.sections``.
    """

    source: Source
    broker: BrokerConfig
    channels: dict[str, ChannelConfig]
    sections: dict[str, object] = {}


def load(path: Path | str) -> Config:
    """The configuration in the file ``path``.

    :raises CanInitializationError: the file cannot be read, is not TOML, or has a wrong value.
    """
    return parse(_read(Path(path)), str(path))


def parse(text: str, path: str) -> Config:
    """The configuration in ``text``; ``path`` names it in errors.

    :raises CanInitializationError: the text is not TOML, or has a wrong value.
    """
    source, document = toml_file.parse(text, path)
    channels = source.table(("channels",), document.get("channels", {}))
    return Config(
        source,
        _broker(source, source.table(("broker",), document.get("broker", {}))),
        {name: _channel(source, name, value) for name, value in channels.items()},
        {title: value for title, value in document.items() if title not in OWN_SECTIONS},
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CanInitializationError(
            f"cannot read the configuration {path}: {error.strerror}"
        ) from error
    return toml_file.decoded(content, str(path))


def _broker(source: Source, table: dict[str, Any]) -> BrokerConfig:
    source.refuse_unknown(("broker",), table, BrokerConfig.__struct_fields__)
    try:
        return msgspec.convert(table, BrokerConfig)
    except msgspec.ValidationError as error:
        fault = validation_fault(error, table)
        raise source.fault_in(("broker",), table, fault) from error


def _channel(source: Source, name: str, value: object) -> ChannelConfig:
    keys = ("channels", name)
    if not is_name(name):
        raise source.fault(
            keys, f"a channel's name has 1 to {MAX_NAME_LENGTH} printable characters"
        )
    parameters = dict(source.table(keys, value))
    interface = parameters.pop("interface", None)
    if interface is None:
        raise source.fault(keys, 'the channel names no interface (interface = "slcan", say)')
    if not isinstance(interface, str):
        raise source.fault((*keys, "interface"), f"must be a string, got {interface!r}")
    pool = parameters.pop("pool", None)
    if pool is not None and not (isinstance(pool, str) and is_name(pool)):
        named = f"a pool's name has 1 to {MAX_NAME_LENGTH} printable characters, got {pool!r}"
        raise source.fault((*keys, "pool"), named)
    databases = _databases(source, keys, parameters.pop("database", []))
    return ChannelConfig(name, interface, parameters, pool, databases)


def _databases(source: Source, keys: tuple[str, ...], value: object) -> tuple[str, ...]:
    """The paths of the databases of the channel whose table is at ``keys``: one, or a list."""
    paths = [value] if isinstance(value, str) else value
    try:
        return tuple(msgspec.convert(paths, _Paths))
    except msgspec.ValidationError as error:
        raise source.fault(
            (*keys, "database"),
            f"must be a path, or a list of {MAX_DATABASES} paths at most; got {value!r}",
        ) from error


def is_name(text: str) -> bool:
    """Whether a text can be the name of a channel, a pool or a recording."""
    return 1 <= len(text) <= MAX_NAME_LENGTH and text.isprintable()
