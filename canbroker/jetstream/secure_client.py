"""nats-py's client, which does not send credentials to a server that does not encrypt.

nats-py itself goes on without TLS if the server, or somebody on the way, does not offer it.
"""

from __future__ import annotations

from nats.aio.client import Client
from nats.errors import Error


class SecureClient(Client):
    """Connects with TLS, or not at all; also when it connects again."""

    def _connect_command(self) -> bytes:
        """What is sent first, once the connection is encrypted."""
        if not self._server_info.get("tls_required"):
            raise Error("nats: TLS is configured here, and the server does not encrypt")
        return super()._connect_command()
