"""The commands that close, configure and open a serial adapter."""

from __future__ import annotations

from typing import NamedTuple

from canbroker.backends.slcan.codec import CR
from canbroker.backends.slcan.dialects import DATA_BITRATES, DIALECTS, UNKNOWN, Dialect
from canbroker.backends.slcan.options import SlcanOptions
from canbroker.errors import CanInitializationError


class Command(NamedTuple):
    """A command that the adapter should acknowledge.

    ``needed``: opening fails if it is refused; ``proven``: also if it is not answered.
    """

    text: str
    meaning: str
    needed: bool = True
    proven: bool = False

    @property
    def line(self) -> bytes:
        return self.text.encode("ascii") + CR


def closing(line_buffer: int = UNKNOWN.line_buffer) -> bytes:
    """Closes the channel, whatever was written before, without transmitting anything.

    A program that was killed may have left half a line in the adapter. Some firmware reads ``C``
    and CR as the rest of that line, and transmits a frame as soon as it has the length code. A CR
    alone does not help: the same firmware then executes the last command again, even a transmit.
    So this overruns the line buffer; what remains in it begins with C.
    """
    return b"C" * (line_buffer + 1) + CR + b"C" + CR


def commands_of(options: SlcanOptions, dialect: Dialect, named: str) -> list[Command]:
    """The commands that configure an adapter of this dialect and open its channel, in order.

    :raises CanInitializationError: the dialect does not support a requested option.
    """
    commands = []
    if options.bitrate is not None:
        digit = dialect.bitrates.get(options.bitrate)
        if digit is None:
            advice = "give btr=" if dialect.has_registers else "give another bitrate"
            raise CanInitializationError(
                f"{named} cannot be set to {options.bitrate} bit/s by a command that is known to "
                f"mean that: {dialect.without[options.bitrate]}; {advice}, or, if its firmware is "
                f"one of {names()}, say so with dialect="
            )
        commands.append(Command(f"S{digit}", f"bitrate {options.bitrate}"))
    if options.btr is not None:
        if not dialect.has_registers:
            raise CanInitializationError(f"{named} takes no bit timing registers (btr)")
        commands.append(Command(f"s{options.btr}", f"bit timing registers {options.btr}"))
    if options.fd and not dialect.has_fd:
        raise CanInitializationError(f"{named} has no CAN FD")
    if options.data_bitrate is not None:
        rate = options.data_bitrate
        commands.append(Command(f"Y{DATA_BITRATES[rate]}", f"data bitrate {rate}"))
    if dialect.timestamps is not None:
        off, on = dialect.timestamps
        is_off = options.timestamps == "off"
        commands.append(Command(off if is_off else on, "timestamps", needed=False))
    return commands + _opening(options, dialect, named)


def _opening(options: SlcanOptions, dialect: Dialect, named: str) -> list[Command]:
    if not options.listen_only:
        *modes, last = dialect.normal
        return [
            *(Command(text, "normal mode", needed=False) for text in modes),
            Command(last, "open the channel"),
        ]
    if dialect.listen_caveat and options.dialect == "auto":
        raise CanInitializationError(
            f"{named} cannot be opened listen-only: {dialect.listen_caveat}; "
            f"dialect={dialect.name} opens it all the same"
        )
    meaning = "open the channel listen-only"
    if dialect.listen is None:
        return [Command("L", meaning, proven=True)]
    return [Command(text, meaning, proven=not dialect.repeatable) for text in dialect.listen]


def names() -> str:
    """The dialects that a user may name."""
    return ", ".join(DIALECTS)
