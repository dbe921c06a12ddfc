"""The configuration file: TOML to typed, frozen configuration.

::

    [broker]                  # optional
    log_level = "info"

    [channels.body]
    interface = "slcan"       # the rest of the table are parameters of this interface
    channel = "/dev/ttyACM0"
    bitrate = 500000
    pool = "bench"            # optional: programs lease it from this pool

The parameters of an interface are checked by ``canbroker.backends.configured``.
Every error is a :class:`CanInitializationError` that names file, key path and, where it can be
found, line.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.model.wording import validation_fault

#: A larger file is not a configuration.
MAX_FILE_BYTES: Final = 1 << 20

MAX_NAME_LENGTH: Final = 64

MAX_RING_MB: Final = 4096
MAX_RING_S: Final = 86_400

#: More error frames than a bus of 1 Mbit/s can carry.
MAX_ERROR_RATE: Final = 100_000

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Source(msgspec.Struct, frozen=True):
    """The file that a configuration came from; says where something in it is wrong."""

    path: str
    text: str

    def fault(self, keys: tuple[str, ...], message: str) -> CanInitializationError:
        """An error about the key ``keys``; the caller raises it."""
        line = line_of(self.text, keys)
        where = [self.path] + [f"line {line}"] * (line is not None) + [".".join(keys)]
        return CanInitializationError(f"{', '.join(filter(None, where))}: {message}")

    def fault_in(
        self, keys: tuple[str, ...], table: dict[str, Any], message: str
    ) -> CanInitializationError:
        """An error about the key of ``table`` that ``message`` names; the table is at ``keys``.

        For messages of checks that know the table but not the file. Of several keys, the first
        one is to blame.
        """
        named = {key: re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message) for key in table}
        positions = {key: match.start() for key, match in named.items() if match}
        blamed = min(positions, key=lambda key: positions[key], default=None)
        return self.fault(keys if blamed is None else (*keys, blamed), message)


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``[broker]`` table.

    ``address`` is where the broker listens; ``None`` means the default. Each channel keeps its
    recent frames for clients that missed some, and for recorders: in ``ring_mb`` MiB of memory, and
    for ``ring_s`` seconds at most. A channel passes on ``error_rate`` error frames a second, and
    the first of each kind; it counts the others.
    """

    address: str | None = None
    log_level: str = "info"
    ring_mb: int = 16
    ring_s: float = 60.0
    error_rate: int = 100

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
    ``pool`` is the name of the pool that it is leased from, or ``None``.
    """

    name: str
    interface: str
    parameters: dict[str, object]
    pool: str | None = None


class Config(msgspec.Struct, frozen=True):
    """A whole configuration file; channels by name, in the order of the file."""

    source: Source
    broker: BrokerConfig
    channels: dict[str, ChannelConfig]


def load(path: Path | str) -> Config:
    """The configuration in the file ``path``.

    :raises CanInitializationError: the file cannot be read, is not TOML, or has a wrong value.
    """
    return parse(_read(Path(path)), str(path))


def parse(text: str, path: str) -> Config:
    """The configuration in ``text``; ``path`` names it in errors.

    :raises CanInitializationError: the text is not TOML, or has a wrong value.
    """
    source = Source(path, text.replace("\r\n", "\n"))  # as tomllib does
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise CanInitializationError(f"{path}: nested too deeply") from None
    except ValueError as error:  # the message ends with line and column
        raise CanInitializationError(f"{path}: not valid TOML: {error}") from error
    _refuse_unknown(source, (), document, ("broker", "channels"))
    channels = _table(source, ("channels",), document.get("channels", {}))
    return Config(
        source,
        _broker(source, _table(source, ("broker",), document.get("broker", {}))),
        {name: _channel(source, name, value) for name, value in channels.items()},
    )


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """Line (from 1) of the TOML document ``text`` on which the key path ``keys`` is given.

    ``None`` if it is not found. Lines are read one by one, so a multi-line string with a line that
    looks like a table's header misleads it; no configuration needs such a string.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), start=1):
        parsed = _parse_line(line)
        if line.lstrip().startswith("["):
            if parsed:
                table = _header_path(parsed)
            if keys and table[: len(keys)] == keys:
                return number
        elif keys[: len(table)] == table and _holds(parsed, keys[len(table) :]):
            return number
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CanInitializationError(
            f"cannot read the configuration {path}: {error.strerror}"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise CanInitializationError(f"{path}: a configuration has {MAX_FILE_BYTES} bytes at most")
    content = content.removeprefix(codecs.BOM_UTF8)  # as editors of Windows write it
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CanInitializationError(f"{path}, line {line}: not UTF-8") from error


def _broker(source: Source, table: dict[str, Any]) -> BrokerConfig:
    _refuse_unknown(source, ("broker",), table, BrokerConfig.__struct_fields__)
    try:
        return msgspec.convert(table, BrokerConfig)
    except msgspec.ValidationError as error:
        fault = validation_fault(error, table)
        raise source.fault_in(("broker",), table, fault) from error


def _channel(source: Source, name: str, value: object) -> ChannelConfig:
    keys = ("channels", name)
    if not _is_name(name):
        raise source.fault(
            keys, f"a channel's name has 1 to {MAX_NAME_LENGTH} printable characters"
        )
    parameters = dict(_table(source, keys, value))
    interface = parameters.pop("interface", None)
    if interface is None:
        raise source.fault(keys, 'the channel names no interface (interface = "slcan", say)')
    if not isinstance(interface, str):
        raise source.fault((*keys, "interface"), f"must be a string, got {interface!r}")
    pool = parameters.pop("pool", None)
    if pool is not None and not (isinstance(pool, str) and _is_name(pool)):
        named = f"a pool's name has 1 to {MAX_NAME_LENGTH} printable characters, got {pool!r}"
        raise source.fault((*keys, "pool"), named)
    return ChannelConfig(name, interface, parameters, pool)


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME_LENGTH and text.isprintable()


def _table(source: Source, keys: tuple[str, ...], value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise source.fault(keys, f"must be a table, got {value!r}")
    return value


def _refuse_unknown(
    source: Source, keys: tuple[str, ...], table: dict[str, Any], known: tuple[str, ...]
) -> None:
    for key in table:
        if key not in known:
            raise source.fault((*keys, key), f"unknown key; known are {', '.join(known)}")


def _parse_line(line: str) -> dict[str, Any]:
    """The content of one line; a value that continues in the next line counts as 0."""
    for text in (line, f"{line.partition('=')[0]}= 0"):
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError):
            continue
    return {}


def _header_path(parsed: object) -> tuple[str, ...]:
    """The key path of a table header that was parsed alone: ``[a.b]`` is ``{a: {b: {}}}``."""
    path: tuple[str, ...] = ()
    while isinstance(parsed, dict) and parsed:
        [(key, parsed)] = parsed.items()
        path = (*path, key)
    return path


def _holds(parsed: object, keys: tuple[str, ...]) -> bool:
    """Whether the key path ``keys``, with at least one key, is in ``parsed``."""
    for key in keys:
        if not isinstance(parsed, dict) or key not in parsed:
            return False
        parsed = parsed[key]
    return bool(keys)
