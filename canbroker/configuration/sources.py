"""Where the values of a ``Bus`` may come from, besides its arguments: environment and files.

Names, order and notation are those that python-can documents, so that a configuration for it works
for canbroker too. Nothing is read before it is asked for.
"""

from __future__ import annotations

import codecs
import enum
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.model.plain_numbers import plain

if TYPE_CHECKING:
    import configparser

#: The file for all users, on Linux and macOS.
SYSTEM_FILE: Path = Path("/etc/can.conf")

DEFAULT_SECTION: Final = "default"

_VARIABLES: Final = {
    "interface": "CAN_INTERFACE",
    "channel": "CAN_CHANNEL",
    "bitrate": "CAN_BITRATE",
}

# A number in its usual spelling; 18 digits fit into the 64 bits of a parameter. One with leading
# zeros stays a text: registers and serial numbers would lose them. They are compiled with the first
# text that is looked at, as most programs give none.
_WHOLE: Final = r"[-+]?(?:0|[1-9][0-9]{0,17})"
_DECIMAL: Final = r"[-+]?[0-9]*\.[0-9]+(?:e[-+]?[0-9]+)?"

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

#: Keys that are not parameters of an interface. ``None`` means the same as leaving the key out.
OWN: Final = OF_THE_BUS | {"channel", "interface"}

#: Never numbers, though they may look like numbers; ``btr`` is four hex digits.
_TEXTS: Final = frozenset({"interface", "btr"})

_logger = logging.getLogger("canbroker.bus")


class Precedence(enum.IntEnum):
    """Where a value was given; the smaller one wins."""

    ARGUMENT = enum.auto()
    RC = enum.auto()
    CONTEXT_VARIABLE = enum.auto()
    VARIABLE = enum.auto()
    CONTEXT_SECTION = enum.auto()
    DEFAULT_SECTION = enum.auto()


class Value(msgspec.Struct, frozen=True):
    """A value, its precedence, and where it was given, in words."""

    value: Any
    precedence: Precedence
    origin: str


Values: TypeAlias = dict[str, Value]


class _File(msgspec.Struct, frozen=True):
    path: Path
    text: str


def from_mapping(values: Mapping[str, Any], precedence: Precedence, origin: str) -> Values:
    """The values that a program or a JSON text gives: texts as :func:`cast` returns them, NumPy's
    numbers as Python's own. The channel of an argument stays as it is.

    ``bustype`` is the former name of ``interface`` in python-can.
    """
    said = {key: value if key == "channel" else plain(value) for key, value in values.items()}
    former = said.pop("bustype", None)
    if said.get("interface") is None:
        said["interface"] = former
    kept = _TEXTS | {"channel"} if precedence is Precedence.ARGUMENT else _TEXTS
    return {
        key: Value(value if key in kept else cast(value), precedence, origin)
        for key, value in said.items()
        if value is not None or key not in OWN
    }


def cast(value: Any) -> Any:
    """A text as the whole number, decimal number or truth value that it spells; else unchanged."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(_WHOLE, value, re.ASCII):
        return int(value)
    if re.fullmatch(_DECIMAL, value, re.ASCII):
        return float(value)
    return {"true": True, "false": False}.get(value.lower(), value)


def variables(context: str | None) -> list[str]:
    """Names of the environment variables of a context (``None``: of none)."""
    suffix = f"_{context}" if context else ""
    return [f"{name}{suffix}" for name in (*_VARIABLES.values(), "CAN_CONFIG")]


def from_environment(context: str | None) -> Values:
    """The values of the variables of a context (``None``: of none); empty variables are ignored.

    :raises CanInitializationError: ``CAN_CONFIG`` is not a JSON object; names the variable.
    """
    precedence = Precedence.CONTEXT_VARIABLE if context else Precedence.VARIABLE
    *names, config = variables(context)
    values = _from_json(config, precedence)
    for key, name in zip(_VARIABLES, names, strict=True):
        if text := os.environ.get(name):
            values |= from_mapping({key: text}, precedence, f"environment variable {name}")
    return values


def config_files() -> list[Path]:
    """The files of this system, whether they exist or not; later ones override earlier ones."""
    try:
        home = [Path.home()]
    except RuntimeError:  # this user has no home directory
        home = []
    system = platform.system()
    files = [path / "can.conf" for path in home]
    if system in {"Linux", "Darwin"}:
        files += [SYSTEM_FILE, *(path / name for path in home for name in (".can", ".canrc"))]
    elif system == "Windows":
        files += [Path("can.ini"), Path(os.environ.get("APPDATA", ""), "can.ini")]
    return files


def from_files(context: str | None) -> tuple[Values, list[str]]:
    """The values in the files, those of the context's section first; and the files, each with the
    reason if it was not read.

    A file that cannot be read is skipped with a warning.

    :raises CanInitializationError: a file is not an INI file; names file and line.
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


def _from_json(variable: str, precedence: Precedence) -> Values:
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
    return from_mapping(values, precedence, origin)


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
    values = _section(parser, DEFAULT_SECTION, Precedence.DEFAULT_SECTION, lines)
    if context:
        values |= _section(parser, context, Precedence.CONTEXT_SECTION, lines)
    return values


def _section(
    parser: configparser.ConfigParser,
    section: str,
    precedence: Precedence,
    lines: Mapping[tuple[str, str], tuple[Path, int]],
) -> Values:
    import configparser  # noqa: PLC0415 - as above

    values: Values = {}
    if not parser.has_section(section):
        return values
    for key in parser.options(section):
        if key == "bustype" and parser.has_option(section, "interface"):
            continue
        # The values of [DEFAULT] hold in every section.
        where = section if (section, key) in lines else parser.default_section
        path, line = lines[where, key]
        try:
            text = parser.get(section, key)
        except configparser.InterpolationError as error:
            fault = " ".join(str(error).split())
            raise CanInitializationError(f"{path}, line {line}: {fault}") from error
        values |= from_mapping({key: text}, precedence, f"{path}:{line} [{where}]")
    return values


def _fault(error: configparser.Error) -> tuple[int | None, str]:
    """The line and the fault that the parser of INI files reports."""
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
    """Section and key of each line of an INI file that has a key, and the line's number (from 1).

    The rules are those of the standard library's parser, which does not keep line numbers.
    """
    section, value_indent = "", None
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if not content or content[0] in "#;":
            continue
        indent = len(line) - len(line.lstrip())
        if value_indent is not None and indent > value_indent:
            continue  # continues the value above
        header = re.match(r"\[(.+)\]", content)
        if header:
            section, value_indent = header[1], None
        else:
            value_indent = indent
            yield (section, re.split("[=:]", content, maxsplit=1)[0].rstrip()), number
