"""What a ``Bus`` is opened with: its arguments, and what is configured besides, with origins.

Who wins is decided key by key, as python-can documents; ``docs/design/configuration.md`` has what
is ours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from canbroker.configuration import sources
from canbroker.configuration.sources import OF_THE_BUS, OWN, Place, Value
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.model import bit_timing

#: The name by which python-can finds our plugin. To ourselves it says: a channel of the broker.
PLUGIN: Final = "canbroker"

#: Channel of ``virtual`` where nothing names one, as python-can documents.
_VIRTUAL_CHANNEL: Final = "channel-0"

#: Interfaces that are told rates, or ``btr``, where others are told registers.
_TOLD_RATES: Final = frozenset({None, "slcan", "socketcan", "virtual"})

_TRUTH_VALUES: Final = frozenset({"exclusive", "fd", "preserve_timestamps", "receive_own_messages"})

#: Channels of the broker at an address (``None``: this user's own); none if it does not run.
Channels: TypeAlias = Callable[[str | None], Sequence[str]]

_logger = logging.getLogger("canbroker.bus")


@dataclass(frozen=True)
class Settings:
    """Effective values by key, ``interface`` and ``channel`` among them, and what was looked at."""

    values: Mapping[str, Value]
    looked_at: Sequence[str]

    def get(self, key: str) -> Any:
        """The value of ``key``, ``None`` if nothing says one."""
        found = self.values.get(key)
        return None if found is None else found.value

    def parameters(self) -> dict[str, Any]:
        """The values that are parameters of the interface."""
        return {key: found.value for key, found in self.values.items() if key not in OWN}

    def explain(self, message: str) -> str:
        """``message`` with the origin of each value that it names and no argument has given."""
        origins = [
            f"{key} is from {found.origin}"
            for key, found in self.values.items()
            if found.place is not Place.ARGUMENT
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
    """What a bus that is given these arguments is opened with.

    Values that come from files are logged at INFO.

    :param given: arguments by name, ``channel`` and ``interface`` among them.
    :param rc: ``canbroker.rc``, as it is now: a user may have put another dict in its place.
    :param context: suffix of the environment variables and section of the files to prefer.
    :param ignore_config: the arguments alone.
    :raises CanInterfaceNotImplementedError: nothing says which channel.
    :raises CanInitializationError: a source is broken, or a value; names where it is.
    """
    effective = settle(gather(given, rc, context, ignore_config=ignore_config), channels)
    injected = [
        f"{key}={found.value!r} ({found.origin})"
        for key, found in effective.values.items()
        if found.place >= Place.CONTEXT_SECTION
    ]
    if injected:
        _logger.info("from configuration files: %s", ", ".join(injected))
    return effective


def gather(
    given: Mapping[str, Any],
    rc: Mapping[str, Any],
    context: str | None = None,
    *,
    ignore_config: bool = False,
) -> Settings:
    """What is said anywhere, the strongest place for each key. Parameters as of :func:`resolve`.

    :raises CanInitializationError: a source is broken; names where.
    """
    arguments = sources.from_mapping(given, Place.ARGUMENT, "argument")
    if ignore_config:
        return Settings(arguments, ["the arguments alone (ignore_config)"])
    weakest_first, looked_at = sources.from_files(context)
    values = weakest_first | sources.from_environment(None)
    variables = sources.variables(None)
    if context:
        values |= sources.from_environment(context)
        variables = [*sources.variables(context), *variables]
    values |= sources.from_mapping(rc, Place.RC, "canbroker.rc")
    looked_at = ["the arguments", "canbroker.rc", *variables, *looked_at]
    return Settings(values | arguments, looked_at)


def settle(found: Settings, channels: Channels) -> Settings:
    """What is in effect of all that was found.

    :raises CanInterfaceNotImplementedError: nothing says which channel.
    :raises CanInitializationError: a value cannot be what it is meant for; names its origin.
    """
    values = dict(found.values)
    if found.get("interface") == PLUGIN:
        del values["interface"]
    channel, interface = values.get("channel"), values.get("interface")
    if channel is None:
        if interface is None or interface.value != "virtual":
            raise _no_channel(found, channels)
        channel = Value(_VIRTUAL_CHANNEL, interface.place, f"{interface.origin} (its default)")
        values["channel"] = channel
    if _is_name(channel, interface, channels, found.get("broker")):
        # What is said in a weaker place than the name is about some other adapter.
        values = {
            key: value
            for key, value in values.items()
            if key in OF_THE_BUS or (key != "interface" and value.place <= channel.place)
        }
    values = {key: _checked(key, value) for key, value in values.items()}
    return Settings(_timed(values), found.looked_at)


def _is_name(channel: Value, interface: Value | None, channels: Channels, broker: Any) -> bool:
    """Whether the channel is one of the broker's, by its name, whatever is said of interfaces."""
    if interface is None:
        return True
    return interface.place > channel.place and str(channel.value) in channels(broker)


def _checked(key: str, found: Value) -> Value:
    """``found`` as what its key is meant for."""
    value = found.value
    if key in _TRUTH_VALUES and value is not None:
        if isinstance(value, str):
            raise CanInitializationError(
                f"{key} must be true or false, got {value!r} ({found.origin})"
            )
        return Value(bool(value), found.place, found.origin)
    if key in {"can_filters", "interface", "broker"} and found.place is not Place.ARGUMENT:
        expected, word = (list, "a list") if key == "can_filters" else (str, "a text")
        if not isinstance(value, expected):
            raise CanInitializationError(f"{key} must be {word}, got {value!r} ({found.origin})")
    return found


def _timed(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """``values`` with a ``timing`` spread into its registers, or the rates that they stand for."""
    timed = dict(values)
    timing = timed.pop("timing", None)
    try:
        if timing is not None and timing.value is not None:
            timed |= {
                name: Value(value, timing.place, timing.origin)
                for name, value in bit_timing.registers(timing.value).items()
            }
        names = bit_timing.complete(timed)
        if not names:
            return timed
        registers = {name: timed[name] for name in names}
        # One kind of saying it wins: the stronger place, and in the same the more exact one.
        weakest = max(registers.values(), key=lambda found: found.place)
        rivals = [timed[key] for key in ("bitrate", "btr") if key in timed]
        if any(rival.place < weakest.place for rival in rivals):
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
        key: Value(value, weakest.place, weakest.origin) for key, value in told.items()
    }


def _told(interface: str | None, registers: Mapping[str, Any]) -> Mapping[str, int | str]:
    """What an interface of our own is told of complete registers."""
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
