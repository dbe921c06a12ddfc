"""``canbroker scan``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import click

from canbroker.configuration.detection import detect_available_configs

_NOT_BARE: Final = re.compile(r"[^A-Za-z0-9_-]+")


@click.command()
@click.option(
    "-i", "--interface", "interfaces", metavar="NAME", multiple=True, help="Look for this only."
)
@click.option("--json", "as_json", is_flag=True, help="As a list, for programs.")
def scan(interfaces: tuple[str, ...], as_json: bool) -> None:
    """Show adapters that could be opened.

    Prints lines for a configuration file; most adapters also want a bitrate there. Takes up to
    5 s where python-can is installed, whose drivers are asked, too.

    \b
    Examples:
      canbroker scan >> bench.toml
      canbroker scan -i slcan --json
    """
    found = detect_available_configs(interfaces or None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(configuration(found)))
    else:
        click.echo("no adapters found", err=True)


def configuration(found: Iterable[dict[str, Any]]) -> list[str]:
    """The adapters as lines of a configuration file (TOML), each a channel with a name."""
    lines: list[str] = []
    names: set[str] = set()
    for config in found:
        name = _name(config, names)
        names.add(name)
        lines.append(f"[channels.{name}]")
        # A JSON scalar is a TOML one; channels are texts.
        written = config | {"channel": str(config["channel"])}
        lines += [f"{_key(key)} = {json.dumps(value)}" for key, value in written.items()]
        lines.append("")
    return lines[:-1]


def _name(config: dict[str, Any], taken: set[str]) -> str:
    """A name for the channel: its own where that is telling, made different where it is taken."""
    own = str(config["channel"]).rpartition("/")[2]
    if not own or own.isdecimal():
        own = f"{config['interface']}{own}"
    name = _NOT_BARE.sub("-", own).strip("-") or config["interface"]
    candidates = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _key(key: str) -> str:
    return json.dumps(key) if _NOT_BARE.search(key) else key
