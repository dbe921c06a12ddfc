"""``canbroker keys``."""

from __future__ import annotations

from pathlib import Path

import click

from canbroker.errors import CanError, CanInitializationError
from canbroker.keys import (
    authorized,
    broker_key,
    edits,
    identity,
    known_brokers,
    secret_file,
)
from canbroker.keys.authorized import Grant, IdentifierRange, Role
from canbroker.model.key import PublicKey
from canbroker.transport import curve
from canbroker.transport.address import TcpAddress, is_tcp, parse_tcp


def _key(text: str) -> PublicKey:
    """:raises click.BadParameter: not a public key. It is not repeated: it may be a secret one."""
    try:
        return PublicKey.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _range(text: str) -> IdentifierRange:
    try:
        return IdentifierRange.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _name(text: str) -> str:
    try:
        authorized.check_name(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return text


def _address(text: str) -> TcpAddress:
    if not is_tcp(text):
        raise click.BadParameter("an address of another machine is tcp://HOST:PORT")
    try:
        return parse_tcp(text)
    except CanError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def keys() -> None:
    """Manage access to brokers over the network.

    Users and brokers prove their identity by keys. Keys that start with cb1: are public and may be
    shown to anybody. Secret ones stay in files that only their owner can read.

    \b
    Example, of a user, of the broker's owner, and of the user again:
      canbroker keys new
      canbroker keys authorize alice cb1:… --role transmit
      canbroker keys trust tcp://bench1:5655 cb1:…
    """


@keys.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def new(file: Path | None) -> None:
    """Make a secret key in FILE, and print the public key to it.

    Without FILE it is this user's own key, for all remote brokers. A file that is there already is
    never overwritten.

    \b
    Examples:
      canbroker keys new
      canbroker keys new ci.key
    """
    path = file or identity.identity_path()
    public, secret = curve.new_pair()
    secret_file.create(path, secret)
    click.echo(f"secret key: {path}", err=True)
    click.echo("public key, for the owner of a broker (canbroker keys authorize):", err=True)
    click.echo(str(public))


@keys.command()
@click.option("--broker", is_flag=True, help="Print the public key of this user's broker alone.")
@click.option("--user", is_flag=True, help="Print the public key of this user alone.")
def show(broker: bool, user: bool) -> None:
    """Show the public keys of this user, and of this user's broker.

    \b
    Example:
      canbroker keys show
    """
    if not broker:
        found = identity.load_identity() if user else identity.find_identity()
        nothing = "none; canbroker keys new makes one"
        _show("this user", str(found.public) if found else nothing, bare=user)
    if not user:
        path = broker_key.broker_key_path()
        secret = secret_file.load(path)
        if broker and secret is None:
            raise CanInitializationError(f"this user's broker has no key yet, in {path}")
        nothing = "none; canbroker serve --listen makes one"
        _show("this broker", str(curve.public_of(secret)) if secret else nothing, bare=broker)


@keys.command()
@click.argument("name", type=_name)
@click.argument("key", type=_key)
@click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    help="What the name may do. Default: as before; observe for a new name.",
)
@click.option(
    "--channel",
    "channels",
    metavar="NAME",
    multiple=True,
    help="A channel that the name may use. Repeatable. Default: as before; all for a new name.",
)
@click.option(
    "--transmit",
    metavar="RANGE",
    type=_range,
    multiple=True,
    help="Identifiers that the name may send: 100-1FF, x18DA0000-18DAFFFF. Repeatable. "
    "Default: as before; all for a new name.",
)
def authorize(
    name: str,
    key: PublicKey,
    role: str | None,
    channels: tuple[str, ...],
    transmit: tuple[IdentifierRange, ...],
) -> None:
    """Let the owner of KEY use this user's broker, as NAME.

    A name may have several keys: it keeps those that it has. A running broker follows within a
    second.

    \b
    Examples:
      canbroker keys authorize alice cb1:… --role admin
      canbroker keys authorize bob cb1:… --role transmit --channel can0 --transmit 100-1FF
    """
    rights = edits.Rights(Role.parse(role) if role else None, channels or None, transmit or None)
    grant = edits.authorize(authorized.authorized_path(), name, key, rights)
    click.echo(_line(grant))


@keys.command()
@click.argument("name", type=_name)
@click.argument("key", type=_key, required=False)
def revoke(name: str, key: PublicKey | None) -> None:
    """Take all rights from NAME, or one of its keys.

    A running broker ends the connections of that key within a second.

    \b
    Examples:
      canbroker keys revoke bob
      canbroker keys revoke bob cb1:…
    """
    for removed in edits.revoke(authorized.authorized_path(), name, key):
        click.echo(f"{name}: revoked {removed}")


@keys.command("list")
def list_() -> None:
    """Show the users of this user's broker, and the brokers that this user knows.

    \b
    Example:
      canbroker keys list
    """
    path = authorized.authorized_path()
    grants = authorized.load(path).grants.values()
    click.echo(f"authorized to use this user's broker ({path}):")
    for grant in grants:
        click.echo(f"  {_line(grant)}")
        for key in grant.keys:
            click.echo(f"    {key}")
    if not grants:
        click.echo("  nobody")
    path = known_brokers.known_brokers_path()
    known = known_brokers.load(path)
    click.echo(f"known brokers ({path}):")
    for address, its_keys in known.items():
        click.echo(f"  {address}")
        for key in its_keys:
            click.echo(f"    {key}")
    if not known:
        click.echo("  none")


@keys.command()
@click.argument("address", type=_address)
@click.argument("key", type=_key)
@click.option("--only", is_flag=True, help="Trust no other key at this address any more.")
def trust(address: TcpAddress, key: PublicKey, only: bool) -> None:
    """Make the broker at ADDRESS known: it has KEY.

    On the broker's machine, canbroker keys show prints the key. A broker may have several keys,
    while one replaces the other.

    \b
    Example:
      canbroker keys trust tcp://bench1:5655 cb1:…
    """
    edits.trust(known_brokers.known_brokers_path(), address, key, only=only)
    click.echo(f"{known_brokers.name_of(address)}: trusted")


def _show(whose: str, what: str, *, bare: bool) -> None:
    click.echo(what if bare else f"{whose:<12} {what}")


def _line(grant: Grant) -> str:
    """What a name may do, in one line."""
    said = f"{grant.name}: {grant.role}"
    if grant.channels is not None:
        said += f", channels {' '.join(grant.channels) or 'none'}"
    if grant.transmit is not None:
        said += f", identifiers {' '.join(map(str, grant.transmit)) or 'none'}"
    return said
