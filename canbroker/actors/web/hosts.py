"""The names under which a browser may ask for the page."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

from canbroker.actors.web.options import WebAddress

_HOST: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_.-]{1,253}))(?::([0-9]{1,5}))?"
)


class Hosts:
    """The names and addresses of this host, with the port of the page.

    A page of somebody else's can have a name that stands for our address, but not an address
    instead of a name: so the address by which the connection has come is ours, and of names only
    those that we know.
    """

    def __init__(self, address: WebAddress, names: Iterable[str], *, secure: bool) -> None:
        """``names``: further ones, in small letters."""
        self._port = address.port
        self._default_port = 443 if secure else 80
        self._names = {*names}
        if address.is_loopback:
            self._names.add("localhost")
        else:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
            self._names.add(address.host)

    def is_ours(self, host: str, server: tuple[str, int] | None) -> bool:
        """Whether a request for ``host``, as its header says, is for us.

        :param server: address and port at our end of the connection.
        """
        match = _HOST.fullmatch(host)
        if match is None or int(match[3] or self._default_port) != self._port:
            return False
        name = match[1] or match[2]
        try:
            number = ipaddress.ip_address(name)
        except ValueError:
            return match[1] is None and name.lower().rstrip(".") in self._names
        return server is not None and number == _at(server[0])


def _at(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Our end of a connection; an IPv4 address as such, also at a socket for both kinds."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
