"""Checks the channels of a configuration file against their interfaces."""

from __future__ import annotations

from pathlib import Path

from canbroker.backends import Options, parse_options
from canbroker.configuration.broker_file import ChannelConfig, Config
from canbroker.configuration.devices import resolved
from canbroker.errors import CanInitializationError, CanInterfaceNotImplementedError
from canbroker.system.toml_file import Source

#: Interfaces without a device: ``channel`` defaults to the channel's name.
_NEED_NO_CHANNEL = frozenset({"virtual"})


def check(config: Config) -> dict[str, tuple[str, Options]]:
    """Interface and options of every channel, by the channel's name. Opens nothing.

    The path of a device may be relative to the file's directory.

    :raises CanInitializationError: an unknown interface, an unknown or invalid parameter, or two
        channels with the same adapter; names file, line and key path.
    """
    checked: dict[str, tuple[str, Options]] = {}
    owners: dict[tuple[str, str], str] = {}
    for name, channel in config.channels.items():
        options = _options(config.source, channel)
        owner = owners.setdefault((channel.interface, options.identity), name)
        if owner != name:
            raise config.source.fault(
                ("channels", name, "channel"),
                f"{channel.interface} adapter {options.channel!r} is channel {owner!r} already;"
                " one adapter is one channel",
            )
        checked[name] = (channel.interface, options)
    return checked


def _options(source: Source, channel: ChannelConfig) -> Options:
    keys = ("channels", channel.name)
    parameters = channel.parameters
    if channel.interface in _NEED_NO_CHANNEL:
        parameters = {"channel": channel.name} | parameters
    device = parameters.get("channel")
    if isinstance(device, str):
        directory = Path(source.path).absolute().parent
        parameters = parameters | {"channel": resolved(channel.interface, device, directory)}
    try:
        return parse_options(channel.interface, parameters)
    except CanInterfaceNotImplementedError as error:
        raise source.fault((*keys, "interface"), str(error)) from error
    except CanInitializationError as error:
        raise source.fault_in(keys, channel.parameters, str(error)) from error
