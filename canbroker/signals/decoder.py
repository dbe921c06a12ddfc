"""Finds the message of a frame in a database, and decodes its signals; by cantools."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import cantools
from cantools.database import Message

from canbroker.errors import CanInitializationError
from canbroker.model.frame import ERROR, EXTENDED, FD, REMOTE, Frame, length_to_dlc
from canbroker.signals.values import Decoded, SignalInfo, SignalValue

#: A larger file is not read: databases of whole cars have a quarter of it.
MAX_DATABASE_BYTES: Final = 64 << 20

#: What cantools raises for data that is not that of the message.
UNDECODABLE: Final = (cantools.Error, ValueError, LookupError, NotImplementedError)

#: How files of a format are encoded, as :func:`cantools.database.load_file` has it.
_ENCODINGS: Final[Mapping[str, str]] = {"dbc": "cp1252", "sym": "cp1252"}
_FORMATS: Final = ("arxml", "cdd", "dbc", "kcd", "sym")


class Decoder:
    """Finds the message of a frame: by its identifier, or by its PGN if the database says J1939."""

    def __init__(self, name: str, messages: Sequence[Message]) -> None:
        """``name``: the database's, for files and errors."""
        self.name = name
        self.messages = messages
        self._by_identifier: dict[tuple[int, bool], Message] = {}
        self._by_pgn: dict[int, Message] = {}
        for message in messages:
            if message.protocol == "j1939":
                self._by_pgn.setdefault(pgn_of(message.frame_id), message)
            else:
                key = (message.frame_id, message.is_extended_frame)
                self._by_identifier.setdefault(key, message)

    def __repr__(self) -> str:
        return f"<Decoder {self.name} messages={len(self.messages)}>"

    @classmethod
    def load(cls, path: Path) -> Self:
        """:raises CanInitializationError: the file cannot be read, or is not a database."""
        return cls.parse(read_database(path), str(path))

    @classmethod
    def parse(cls, content: bytes, path: str) -> Self:
        """The database with this content; ``path`` tells its format, and names it in errors.

        :raises CanInitializationError: it is not a database.
        """
        suffix = Path(path).suffix.lower().removeprefix(".")
        form = suffix if suffix in _FORMATS else None
        binary = io.BytesIO(content)
        text = io.TextIOWrapper(binary, _ENCODINGS.get(suffix, "utf-8"), errors="replace").read()
        try:
            found: Any = cantools.database.load_string(text, form)
        except (cantools.database.UnsupportedDatabaseFormatError, cantools.Error) as error:
            why = " ".join(str(error).split())
            raise CanInitializationError(f"{path} is not a database: {why}") from error
        if not isinstance(found, cantools.database.Database):
            raise CanInitializationError(f"{path} describes diagnostics, not messages")
        return cls(Path(path).name, found.messages)

    @staticmethod
    def is_database(value: object) -> bool:
        """Whether it is a database with messages that cantools has loaded."""
        return isinstance(value, cantools.database.Database)

    @classmethod
    def joined(cls, decoders: Iterable[Decoder]) -> Self:
        """One for the messages of several; of two for one frame, that of the first one counts."""
        parts = list(decoders)
        name = ", ".join(part.name for part in parts)
        return cls(name, [message for part in parts for message in part.messages])

    def signals(self) -> list[SignalInfo]:
        """All signals, in the order of the database; of containers those of their messages, as
        ``MESSAGE.SIGNAL``."""
        return [
            _info(message, signal, prefix)
            for message in self.messages
            for part, prefix in _parts(message)
            for signal in part.signals
        ]

    def message(self, frame: Frame) -> Message | None:
        """The message that a frame carries, or ``None`` if the database does not have it."""
        is_extended = bool(frame.flags & EXTENDED)
        message = self._by_identifier.get((frame.arbitration_id, is_extended))
        if message is None and is_extended and self._by_pgn:
            message = self._by_pgn.get(pgn_of(frame.arbitration_id))
        return message

    def name_of(self, frame: Frame) -> str | None:
        """The name of the message that a frame carries, without decoding it."""
        message = None if frame.flags & (ERROR | REMOTE) else self.message(frame)
        return None if message is None else str(message.name)

    def decode(self, frame: Frame) -> Decoded | None:
        """What a frame says; ``None`` if the database does not have its message, or the frame
        carries none: remote and error frames."""
        if frame.flags & (ERROR | REMOTE) or isinstance(frame.data, int):
            return None
        message = self.message(frame)
        if message is None:
            return None
        data = bytes(frame.data)
        if frame.flags & FD and not message.is_container:
            data = _without_padding(data, message.length)
        try:
            if message.is_container:
                return _container(message, data)
            return Decoded(message.name, _signals(message, data))
        except UNDECODABLE as error:
            return Decoded(message.name, problem=str(error) or type(error).__name__)


def _parts(message: Message) -> list[tuple[Message, str]]:
    """The message, or those in a container, each with what the names of its signals begin with."""
    if not message.is_container:
        return [(message, "")]
    return [(part, f"{part.name}.") for part in message.contained_messages]


def _info(message: Message, signal: Any, prefix: str) -> SignalInfo:
    return SignalInfo(
        message.name,
        prefix + signal.name,
        signal.unit or "",
        {int(number): str(label) for number, label in (signal.choices or {}).items()},
        message.frame_id,
        message.is_extended_frame,
    )


def read_database(path: Path) -> bytes:
    """The content of a database's file.

    :raises CanInitializationError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DATABASE_BYTES + 1)
    except OSError as error:
        raise CanInitializationError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # no file can have such a name
        raise CanInitializationError(f"cannot read {str(path)!r}: {error}") from error
    if len(content) > MAX_DATABASE_BYTES:
        limit = MAX_DATABASE_BYTES >> 20
        raise CanInitializationError(f"{path}: a database has {limit} MiB at most")
    return content


def pgn_of(identifier: int) -> int:
    """J1939's parameter group number of a 29-bit identifier (SAE J1939-21)."""
    number = identifier >> 8 & 0x3FFFF
    return number & 0x3FF00 if is_addressed(identifier) else number


def is_addressed(identifier: int) -> bool:
    """Whether the second byte of a J1939 identifier is the address of the destination."""
    return (identifier >> 16 & 0xFF) < 240


def _without_padding(data: bytes, length: int) -> bytes:
    """FD data without the bytes that fill it up to a length that such a frame can have."""
    is_padded = len(data) > length and length_to_dlc(length) == length_to_dlc(len(data))
    return data[:length] if is_padded else data


def _signals(message: Message, data: bytes, prefix: str = "") -> tuple[SignalValue, ...]:
    raw: Any = message.decode_simple(
        data, decode_choices=False, scaling=False, allow_truncated=False, allow_excess=False
    )
    return tuple(
        _value(signal, raw[signal.name], prefix) for signal in message.signals if signal.name in raw
    )


def _value(signal: Any, raw: Any, prefix: str) -> SignalValue:
    conversion = signal.conversion
    label = conversion.choices.get(raw) if conversion.choices else None
    return SignalValue(
        prefix + signal.name,
        conversion.raw_to_scaled(raw, decode_choices=False),
        None if label is None else str(label),
        signal.unit or "",
    )


def _container(message: Message, data: bytes) -> Decoded:
    """The messages in a container (AUTOSAR's multiplexed PDUs)."""
    contained: list[Decoded] = []
    signals: list[SignalValue] = []
    for part, content in message.unpack_container(data):
        if not isinstance(part, Message):
            unknown = f"Header ID: 0x{part:x}, Data: {content.hex()}"
            contained.append(Decoded("", problem=f"(Unknown contained message: {unknown})"))
            continue
        try:
            contained.append(Decoded(part.name, _signals(part, content)))
            signals += _signals(part, content, f"{part.name}.")
        except UNDECODABLE:
            problem = f"{part.name}: Undecodable data: {content.hex(' ')}"
            contained.append(Decoded(part.name, problem=problem))
    return Decoded(message.name, tuple(signals), contained=tuple(contained))
