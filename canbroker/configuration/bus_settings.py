"""The settings of a ``Bus``: its arguments, and configured values with their origins.

Precedence is decided for each key, as python-can documents; ``docs/design/configuration.md`` lists
our additions.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from canbroker.configuration import sources
from canbroker.configuration.sources import OF_THE_BUS, OWN, Precedence, Value
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model import bit_timing

#: The name by which python-can finds our plugin. In our own settings it means: a broker's channel.
PLUGIN: Final = "canbroker"

#: Channel of ``virtual`` if none is given, as python-can documents.
_VIRTUAL_CHANNEL: Final = "channel-0"

#: Interfaces that get bit rates, or ``btr``; other interfaces get registers.
_TOLD_RATES: Final = frozenset({None, "slcan", "socketcan", "virtual"})

_TRUTH_VALUES: Final = frozenset({"exclusive", "fd", "preserve_timestamps", "receive_own_messages"})

#: Returns the channels of the broker at an address (``None``: this user's own broker), or an empty
#: sequence if it does not run.
Channels: TypeAlias = Callable[[str | None], Sequence[str]]

_logger = logging.getLogger("canbroker.bus")


class Settings(msgspec.Struct, frozen=True):
    """Values by key, ``interface`` and ``channel`` among them, and the sources that were read."""

    values: Mapping[str, Value]
    looked_at: Sequence[str]

    def get(self, key: str) -> Any:
        """The value of ``key``, ``None`` if there is none."""
        found = self.values.get(key)
        return None if found is None else found.value

    def parameters(self) -> dict[str, Any]:
        """The values that are parameters of the interface."""
        return {key: found.value for key, found in self.values.items() if key not in OWN}

    def explain(self, message: str) -> str:
        """``message``, with the origin of each value that it names, unless an argument gave it."""
        origins = [
            f"{key} is from {found.origin}"
            for key, found in self.values.items()
            if found.precedence is not Precedence.ARGUMENT
            and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message)
        ]
        return f"{message} ({', '.join(origins)})" if origins else message


def resolve(
    given: Mapping[str, Any],
    rc: Mapping[str, Any],
    context: str | None = None,
    *,
    ignore_config: bool = False,
    channels: Channels,
) -> Settings:
    """The settings of a bus with these arguments.

    Values that come from files are logged at INFO.

    :param given: arguments by name, ``channel`` and ``interface`` among them.
    :param rc: ``canbroker.rc``, as it is now: a user may have replaced the dict.
    :param context: suffix of the environment variables and section of the files to prefer.
    :param ignore_config: use the arguments alone.
    :raises CanInterfaceNotImplementedError: no channel is given anywhere.
    :raises CanInitializationError: a source is broken, or a value is wrong; says where.
    """
    settings = effective(gather(given, rc, context, ignore_config=ignore_config), channels)
    injected = [
        f"{key}={found.value!r} ({found.origin})"
        for key, found in settings.values.items()
        if found.precedence >= Precedence.CONTEXT_SECTION
    ]
    if injected:
        _logger.info("from configuration files: %s", ", ".join(injected))
    return settings


def gather(
    given: Mapping[str, Any],
    rc: Mapping[str, Any],
    context: str | None = None,
    *,
    ignore_config: bool = False,
) -> Settings:
    """For each key the value with the highest precedence. Parameters as of :func:`resolve`.

    :raises CanInitializationError: a source is broken; says where.
    """
    arguments = sources.from_mapping(given, Precedence.ARGUMENT, "argument")
    if ignore_config:
        return Settings(arguments, ["the arguments alone (ignore_config)"])
    weakest_first, looked_at = sources.from_files(context)
    values = weakest_first | sources.from_environment(None)
    variables = sources.variables(None)
    if context:
        values |= sources.from_environment(context)
        variables = [*sources.variables(context), *variables]
    values |= sources.from_mapping(rc, Precedence.RC, "canbroker.rc")
    looked_at = ["the arguments", "canbroker.rc", *variables, *looked_at]
    return Settings(values | arguments, looked_at)


def effective(found: Settings, channels: Channels) -> Settings:
    """The values that apply, of all that were found.

    :raises CanInterfaceNotImplementedError: no channel is given anywhere.
    :raises CanInitializationError: a value has the wrong type; names its origin.
    """
    values = dict(found.values)
    if found.get("interface") == PLUGIN:
        del values["interface"]
    channel, interface = values.get("channel"), values.get("interface")
    if channel is None:
        if interface is None or interface.value != "virtual":
            raise _no_channel(found, channels)
        channel = Value(_VIRTUAL_CHANNEL, interface.precedence, f"{interface.origin} (its default)")
        values["channel"] = channel
    if _is_name(channel, interface, channels, found.get("broker")):
        # Values with a lower precedence than the name's are about another adapter.
        values = {
            key: value
            for key, value in values.items()
            if key in OF_THE_BUS or (key != "interface" and value.precedence <= channel.precedence)
        }
    values = {key: _checked(key, value) for key, value in values.items()}
    return Settings(_timed(values), found.looked_at)


def _is_name(channel: Value, interface: Value | None, channels: Channels, broker: Any) -> bool:
    """Whether the channel is the name of a broker's channel, even if an interface is configured."""
    if interface is None:
        return True
    return interface.precedence > channel.precedence and str(channel.value) in channels(broker)


def _checked(key: str, found: Value) -> Value:
    """``found``, with the type that its key needs."""
    value = found.value
    if key in _TRUTH_VALUES and value is not None:
        if isinstance(value, str):
            raise CanInitializationError(
                f"{key} must be true or false, got {value!r} ({found.origin})"
            )
        return Value(bool(value), found.precedence, found.origin)
    if (
        key in {"can_filters", "interface", "broker"}
        and found.precedence is not Precedence.ARGUMENT
    ):
        expected, word = (list, "a list") if key == "can_filters" else (str, "a text")
        if not isinstance(value, expected):
            raise CanInitializationError(f"{key} must be {word}, got {value!r} ({found.origin})")
    return found


def _timed(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """``values``, with the registers of ``timing`` in its place, or the bit rates they mean."""
    timed = dict(values)
    timing = timed.pop("timing", None)
    try:
        if timing is not None and timing.value is not None:
            timed |= {
                name: Value(value, timing.precedence, timing.origin)
                for name, value in bit_timing.registers(timing.value).items()
            }
        names = bit_timing.complete(timed)
        if not names:
            return timed
        registers = {name: timed[name] for name in names}
        # The notation with the higher precedence wins; of two with the same, the more exact one.
        weakest = max(registers.values(), key=lambda found: found.precedence)
        rivals = [timed[key] for key in ("bitrate", "btr") if key in timed]
        if any(rival.precedence < weakest.precedence for rival in rivals):
            return {key: found for key, found in timed.items() if key not in registers}
        interface = timed["interface"].value if "interface" in timed else None
        if interface not in _TOLD_RATES:
            return timed
        replaced = {*registers, "bitrate", "btr"}
        others = {key: found for key, found in timed.items() if key not in replaced}
        told = _told(interface, {name: found.value for name, found in registers.items()})
    except ValueError as error:
        said = Settings({**values, **timed}, ())
        raise CanInitializationError(said.explain(str(error))) from error
    return others | {
        key: Value(value, weakest.precedence, weakest.origin) for key, value in told.items()
    }


def _told(interface: str | None, registers: Mapping[str, Any]) -> Mapping[str, int | str]:
    """What one of our own interfaces gets instead of complete registers."""
    btr = bit_timing.btr(registers) if interface == "slcan" else None
    return bit_timing.rates(registers) if btr is None else {"btr": btr}


def _no_channel(found: Settings, channels: Channels) -> CanInterfaceNotImplementedError:
    interface = found.get("interface")
    missing = "no interface and no channel" if interface is None else "no channel"
    known = ", ".join(map(repr, channels(found.get("broker")))) or "none"
    return CanInterfaceNotImplementedError(
        f"{missing} given: name a channel of the broker, or an interface and a channel; "
        f"looked at: {', '.join(found.looked_at)}; channels of the broker: {known}"
    )
