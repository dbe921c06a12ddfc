"""Which key the broker at an address must have, and what happens if this user does not know it."""

from __future__ import annotations

import sys
import threading
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.keys import known_brokers
from canbroker.keys.offer import ask_for_key
from canbroker.model.key import PublicKey
from canbroker.system.terminals import in_foreground
from canbroker.transport.address import TcpAddress

#: How long an unknown broker may take to say its key: it is asked over the network.
_UNKNOWN_S: Final = 3.0

#: How long one with several known keys may take; without an answer, each of them is tried.
_KNOWN_S: Final = 1.0


def keys_of(address: TcpAddress) -> tuple[PublicKey, ...]:
    """The keys that the broker at ``address`` may have, the likeliest one first; none if it is
    reached without encryption.

    If this user knows none, the broker says its key, and the user is asked on a terminal whether it
    is right. May take some seconds then; and as long as the user takes.

    :raises CanInitializationError: the key is unknown and nobody can be asked, or says that it is
        wrong; names the key, and the command that makes it known. Or a file of keys has a fault.
    """
    if not address.encrypted:
        return ()
    if address.key is not None:
        return (address.key,)
    path = known_brokers.known_brokers_path()
    known = known_brokers.load(path).get(known_brokers.name_of(address), ())
    if len(known) == 1:
        return known
    if known:
        offered = ask_for_key(address.host, address.port, _KNOWN_S)
        return tuple(sorted(known, key=lambda key: key != offered))
    key = _introduced(address)
    from canbroker.keys import edits  # noqa: PLC0415 - only the first use changes a file

    edits.trust(path, address, key)
    return (key,)


def command_to_trust(address: TcpAddress, key: PublicKey | None) -> str:
    """The command that makes a broker known, to be copied into a shell."""
    return f"canbroker keys trust {known_brokers.name_of(address)} {key or 'KEY'}"


def _introduced(address: TcpAddress) -> PublicKey:
    key = ask_for_key(address.host, address.port, _UNKNOWN_S)
    where = known_brokers.name_of(address)
    if key is None:
        raise CanInitializationError(
            f"the broker at {where} is not known here, and does not say its key "
            f"(UDP port {address.port}); on its machine, canbroker keys show prints the key, then "
            f"here: {command_to_trust(address, None)}"
        )
    if not _terminal():
        raise CanInitializationError(
            f"the broker at {where} is not known here; it says that its key is {key}; if "
            f"canbroker keys show prints the same on its machine: {command_to_trust(address, key)}"
        )
    if not _agrees(where, key):
        raise CanInitializationError(f"the key of the broker at {where} was not accepted")
    return key


def _terminal() -> bool:
    """Whether a person can be asked: in the foreground of a terminal."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        return sys.stdin.isatty() and sys.stderr.isatty() and in_foreground(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed
        return False


def _agrees(where: str, key: PublicKey) -> bool:
    """Asks the user on the terminal; only ``yes`` is a yes."""
    print(  # noqa: T201 - this is the question
        f"canbroker: the broker at {where} is not known here. It says that its key is\n"
        f"{key}\n"
        "Anybody between here and there could say so. Compare it with what\n"
        "`canbroker keys show` prints on the broker's machine.\n"
        "Is it the same (yes/no)? ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() == "yes"
