"""Shared by commands: the options that open a channel, and others."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from canbroker.client import Bus
from canbroker.configuration.sources import OWN
from canbroker.errors import CanInitializationError
from canbroker.model.filters import EVERYTHING, FilterSet
from canbroker.model.frame import Frame
from canbroker.model.message import Message

#: Arguments of ``Bus`` that are not parameters of an interface, including ``self``.
_OWN_ARGUMENTS: Final = OWN.union(inspect.signature(Bus.__init__).parameters)


class NotNegative(click.FloatRange):
    """A number of 0 or above, up to ``most``; neither infinity nor NaN."""

    def __init__(self, most: float | None = None) -> None:
        super().__init__(min=0, max=most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


#: Larger counts are cut to this one, which no command ever reaches.
_MANY: Final = 1 << 62


class _Count(click.IntRange):
    """A whole number above 0."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        return min(number, _MANY)


COUNT: Final = _Count(min=1)

broker_option = click.option(
    "--broker",
    metavar="ADDRESS",
    help="The broker's address, ipc:///…/broker or tcp://HOST:PORT. Default: this user's own.",
)


def databases_option(use: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds ``--dbc`` to a command, as an argument ``databases``.

    :param use: a sentence of the help: what the command does with them.
    """
    return click.option(
        "--dbc",
        "databases",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        multiple=True,
        help=f"{use} A file in DBC, KCD, SYM or ARXML. Repeatable.",
    )


@dataclass(frozen=True)
class Opener:
    """Opens channels with the options of :func:`opens_channels`."""

    interface: str | None
    parameters: dict[str, Any]
    broker: str | None

    def open(self, channel: str, filters: FilterSet = EVERYTHING, kind: type[Bus] = Bus) -> Bus:
        """:raises CanError: the broker, the adapter or a parameter is at fault."""
        given = {"can_filters": filters, "broker": self.broker, **self.parameters}
        try:
            return kind(channel, self.interface, **given)
        except ValueError as error:  # an argument of Bus itself, from the environment or a file
            raise CanInitializationError(str(error)) from error

    def open_listed(self, channel: str) -> Bus:
        """Opens another channel of the broker, by the name that the broker has for it; the other
        options are not for that one.

        :raises CanError: the broker or the adapter is at fault.
        """
        return Opener(None, {"ignore_config": True}, self.broker).open(channel)


def opens_channels(*bitrate_names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that open a channel to a command, as one ``opener`` argument.

    :param bitrate_names: of the option for the bitrate, as ``-b`` is not free in every command.
    """
    options = (
        click.option(
            "-i",
            "--interface",
            metavar="NAME",
            help="slcan, socketcan, virtual, or python-can's.",
        ),
        click.option(
            *bitrate_names,
            "bitrate",
            metavar="BPS",
            type=COUNT,
            help="Bits per second.",
        ),
        click.option(
            "-p",
            "--parameter",
            "parameters",
            metavar="KEY=VALUE",
            type=parameter,
            multiple=True,
            help="Any parameter of the interface, -p fd=true. Repeatable.",
        ),
        broker_option,
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_opener(
            *,
            interface: str | None,
            bitrate: int | None,
            parameters: tuple[tuple[str, Any], ...],
            broker: str | None,
            **others: Any,
        ) -> None:
            given = dict(parameters) | ({} if bitrate is None else {"bitrate": bitrate})
            command(opener=Opener(interface, given, broker), **others)

        wrapped: Callable[..., None] = with_opener
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def parameter(text: str) -> tuple[str, Any]:
    """Splits ``KEY=VALUE``. The value is read as in a configuration file; if that fails, as text.

    :raises click.BadParameter: it has another form, or names an argument of ``Bus``.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    if key in _OWN_ARGUMENTS:
        raise click.BadParameter(f"{key!r} is not a parameter of an interface")
    return key, _scalar(value)


def outgoing(frame: Frame) -> Message:
    """The frame as a message to send."""
    return Message.from_frame(frame, None, is_rx=False)


def _scalar(text: str) -> str | int | float | bool:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document["value"]
    return value if len(document) == 1 and isinstance(value, (str, int, float)) else text


def count_damage_only() -> None:
    """Has python-can's readers not warn of each part of a file that they skip: all are counted."""
    logging.getLogger("can").setLevel(logging.ERROR)
