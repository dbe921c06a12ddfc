"""Where the values of a ``Bus`` may come from, besides its arguments: environment and files.

Names, order and notation are those that python-can documents, so that what is configured for it
is configured for us. Nothing of it is read before it is asked for.
"""

from __future__ import annotations

import codecs
import enum
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.model.plain_numbers import plain

if TYPE_CHECKING:
    import configparser

#: What is the same for all users. Linux and macOS.
SYSTEM_FILE: Path = Path("/etc/can.conf")

DEFAULT_SECTION: Final = "default"

_VARIABLES: Final = {
    "interface": "CAN_INTERFACE",
    "channel": "CAN_CHANNEL",
    "bitrate": "CAN_BITRATE",
}

# A number in its usual spelling; 18 digits fit the 64 bits of a parameter. One that begins with
# zeros stays a text: registers and serial numbers would lose them.
_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL: Final = re.compile(r"[-+]?[0-9]*\.[0-9]+(?:e[-+]?[0-9]+)?", re.ASCII)

#: Arguments that are about the bus object; all others are about its adapter.
OF_THE_BUS: Final = frozenset(
    {
        "broker",
        "can_filters",
        "exclusive",
        "history",
        "on_loss",
        "on_slow",
        "preserve_timestamps",
        "receive_own_messages",
    }
)

#: Keys that are no parameters of an interface. ``None`` for one is the same as not to say it.
OWN: Final = OF_THE_BUS | {"channel", "interface"}

#: Never numbers, though they may look like one; ``btr`` is four hex digits.
_TEXTS: Final = frozenset({"interface", "btr"})

_logger = logging.getLogger("canbroker.bus")


class Place(enum.IntEnum):
    """Where a value was said; the smaller one wins."""

    ARGUMENT = enum.auto()
    RC = enum.auto()
    CONTEXT_VARIABLE = enum.auto()
    VARIABLE = enum.auto()
    CONTEXT_SECTION = enum.auto()
    DEFAULT_SECTION = enum.auto()


@dataclass(frozen=True)
class Value:
    """A value, where it was said, and that place as people call it."""

    value: Any
    place: Place
    origin: str


Values: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class _File:
    path: Path
    text: str


def from_mapping(values: Mapping[str, Any], place: Place, origin: str) -> Values:
    """What a program or a JSON text says, texts cast; arguments keep their channel as it is.
    Numbers of NumPy's become Python's own.

    ``bustype`` is what python-can once called ``interface``.
    """
    said = {key: value if key == "channel" else plain(value) for key, value in values.items()}
    former = said.pop("bustype", None)
    if said.get("interface") is None:
        said["interface"] = former
    kept = _TEXTS | {"channel"} if place is Place.ARGUMENT else _TEXTS
    return {
        key: Value(value if key in kept else cast(value), place, origin)
        for key, value in said.items()
        if value is not None or key not in OWN
    }


def cast(value: Any) -> Any:
    """A text as the whole number, decimal number or truth value that it spells; else unchanged."""
    if not isinstance(value, str):
        return value
    if _WHOLE.fullmatch(value):
        return int(value)
    if _DECIMAL.fullmatch(value):
        return float(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def variables(context: str | None) -> list[str]:
    """Names of the environment variables of a context (``None``: of none)."""
    suffix = f"_{context}" if context else ""
    return [f"{name}{suffix}" for name in (*_VARIABLES.values(), "CAN_CONFIG")]


def from_environment(context: str | None) -> Values:
    """What the variables of a context (``None``: of none) say; an empty one says nothing.

    :raises CanInitializationError: ``CAN_CONFIG`` is no JSON object; names the variable.
    """
    place = Place.CONTEXT_VARIABLE if context else Place.VARIABLE
    *names, config = variables(context)
    values = _from_json(config, place)
    for key, name in zip(_VARIABLES, names, strict=True):
        if text := os.environ.get(name):
            values |= from_mapping({key: text}, place, f"environment variable {name}")
    return values


def config_files() -> list[Path]:
    """The files of this system, whether they are there or not; a later one overrides."""
    try:
        home = [Path.home()]
    except RuntimeError:  # this user has none
        home = []
    system = platform.system()
    files = [path / "can.conf" for path in home]
    if system in {"Linux", "Darwin"}:
        files += [SYSTEM_FILE, *(path / name for path in home for name in (".can", ".canrc"))]
    elif system == "Windows":
        files += [Path("can.ini"), Path(os.environ.get("APPDATA", ""), "can.ini")]
    return files


def from_files(context: str | None) -> tuple[Values, list[str]]:
    """What the files say, the section of the context first, and each file with what became of it.

    One that cannot be read is passed over, with a warning.

    :raises CanInitializationError: a file is no INI file; names file and line.
    """
    files, looked_at = [], []
    for path in config_files():
        try:
            files.append(_File(path, _text(path)))
            looked_at.append(str(path))
        except (FileNotFoundError, NotADirectoryError):
            looked_at.append(f"{path} (not there)")
        except OSError as error:
            looked_at.append(f"{path} (cannot be read: {error.strerror})")
            _logger.warning("configuration %s cannot be read: %s", path, error.strerror)
    return (_parse(files, context) if files else {}), looked_at


def _from_json(variable: str, place: Place) -> Values:
    text = os.environ.get(variable)
    if not text:
        return {}
    origin = f"environment variable {variable}"
    try:
        values = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.ValidationError as error:
        raise CanInitializationError(f"{origin} must be a JSON object: {text[:80]!r}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CanInitializationError(f"{origin} must be a JSON object: {error}") from error
    return from_mapping(values, place, origin)


def _text(path: Path) -> str:
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CanInitializationError(f"{path}, line {line}: not UTF-8") from error


def _parse(files: list[_File], context: str | None) -> Values:
    import configparser  # noqa: PLC0415 - most users have no such file

    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign] # keys are as written
    lines: dict[tuple[str, str], tuple[Path, int]] = {}
    for file in files:
        try:
            parser.read_string(file.text, str(file.path))
        except configparser.Error as error:
            line, fault = _fault(error)
            raise CanInitializationError(f"{file.path}, line {line}: {fault}") from error
        lines |= {key: (file.path, line) for key, line in _lines(file.text)}
    values = _section(parser, DEFAULT_SECTION, Place.DEFAULT_SECTION, lines)
    if context:
        values |= _section(parser, context, Place.CONTEXT_SECTION, lines)
    return values


def _section(
    parser: configparser.ConfigParser,
    section: str,
    place: Place,
    lines: Mapping[tuple[str, str], tuple[Path, int]],
) -> Values:
    import configparser  # noqa: PLC0415 - as above

    values: Values = {}
    if not parser.has_section(section):
        return values
    for key in parser.options(section):
        if key == "bustype" and parser.has_option(section, "interface"):
            continue
        # What [DEFAULT] says holds in every section.
        where = section if (section, key) in lines else parser.default_section
        path, line = lines[where, key]
        try:
            text = parser.get(section, key)
        except configparser.InterpolationError as error:
            fault = " ".join(str(error).split())
            raise CanInitializationError(f"{path}, line {line}: {fault}") from error
        values |= from_mapping({key: text}, place, f"{path}:{line} [{where}]")
    return values


def _fault(error: configparser.Error) -> tuple[int | None, str]:
    """Line and fault of what the parser of INI files complains of."""
    import configparser  # noqa: PLC0415 - as above

    match error:
        case configparser.DuplicateOptionError():
            return error.lineno, f"{error.option} is in section [{error.section}] already"
        case configparser.DuplicateSectionError():
            return error.lineno, f"section [{error.section}] is there already"
        case configparser.MissingSectionHeaderError():
            return error.lineno, "a section must come first: [default]"
        case configparser.ParsingError():
            return error.errors[0][0], "neither [SECTION] nor KEY = VALUE"
        case _:
            return None, str(error)


def _lines(text: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Section and key of each line of an INI file that has one, and the line's number (from 1).

    The standard library's parser, whose rules these are, keeps no numbers.
    """
    section, value_indent = "", None
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        indent = len(line) - len(line.lstrip())
        if value_indent is not None and indent > value_indent:
            continue  # goes on with the value above
        header = re.match(r"\[(.+)\]", content)
        if header:
            section, value_indent = header[1], None
        else:
            value_indent = indent
            yield (section, re.split("[=:]", content, maxsplit=1)[0].rstrip()), number
