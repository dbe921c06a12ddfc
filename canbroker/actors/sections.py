"""Checks the parts of a configuration file that are about kinds of actors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from canbroker.actors.kinds import KINDS, Section
from canbroker.actors.nats.options import NatsOptions
from canbroker.actors.web.installed import check_installed
from canbroker.actors.web.options import WebOptions
from canbroker.configuration.broker_file import MAX_NAME_LENGTH, OWN_SECTIONS, Config, is_name
from canbroker.jetstream import server as nats_server
from canbroker.model.wording import validation_fault
from canbroker.system.toml_file import Source


def check(config: Config) -> dict[str, dict[str, Any]]:
    """The options of all actors that the file names: by kind, then by the actor's name.

    The one actor of a section without names has the name of the kind.

    :raises CanInitializationError: an unknown section or key, or a wrong value; names file, line
        and key path.
    """
    kinds = {
        kind.section.name: (name, kind.section) for name, kind in KINDS.items() if kind.section
    }
    config.source.refuse_unknown((), config.sections, (*OWN_SECTIONS, *kinds))
    checked: dict[str, dict[str, Any]] = {}
    for title, content in config.sections.items():
        kind, section = kinds[title]
        table = config.source.table((title,), content)
        if section.is_named:
            checked[kind] = {
                name: _options(config.source, section, name, value) for name, value in table.items()
            }
        else:
            checked[kind] = {kind: _converted(config.source, section, (title,), table)}
    return checked


def web_options(
    config: Config | None, sections: Mapping[str, Mapping[str, Any]]
) -> WebOptions | None:
    """The options of the web page, with absolute paths, if there is to be one.

    :param sections: what :func:`check` has returned.
    :raises CanInitializationError: its packages are not installed, or its files of TLS cannot be
        used; names file, line and key path.
    """
    options: WebOptions = sections.get("web", {}).get("web", WebOptions())
    if config is None or options.listen is None:
        return None
    check_installed()
    options = options.resolved(Path(config.source.path).absolute().parent)
    try:
        options.tls()
    except ValueError as error:
        key = str(error).partition(":")[0]
        raise config.source.fault(("web", key), str(error).partition(": ")[2]) from error
    return options


def nats_options(
    config: Config | None, sections: Mapping[str, Mapping[str, Any]]
) -> NatsOptions | None:
    """The options of the bridge to NATS, with all that was left out, if there is to be one.

    :param sections: what :func:`check` has returned.
    :raises CanInitializationError: its packages are not installed, a channel is unknown, or a file
        cannot be used; names file, line and key path.
    """
    options: NatsOptions = sections.get("nats", {}).get("nats", NatsOptions())
    if config is None or options.url is None:
        return None
    nats_server.check_installed("[nats]")
    try:
        return options.resolved(Path(config.source.path).absolute().parent, [*config.channels])
    except ValueError as error:
        key, _, text = str(error).partition(": ")
        raise config.source.fault(("nats", *key.split(".")), text) from error


def _options(source: Source, section: Section, name: str, value: object) -> Any:
    keys = (section.name, name)
    if not is_name(name):
        raise source.fault(keys, f"a name has 1 to {MAX_NAME_LENGTH} printable characters")
    return _converted(source, section, keys, source.table(keys, value))


def _converted(
    source: Source, section: Section, keys: tuple[str, ...], table: dict[str, Any]
) -> Any:
    source.refuse_unknown(keys, table, section.options.__struct_fields__)
    try:
        return msgspec.convert(table, section.options)
    except msgspec.ValidationError as error:
        raise source.fault_in(keys, table, validation_fault(error, table)) from error
