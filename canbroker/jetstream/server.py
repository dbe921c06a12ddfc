"""Connects to NATS, and says in one sentence why it cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from canbroker.errors import CanInitializationError
from canbroker.system.extras import Needs

if TYPE_CHECKING:
    import ssl

    from nats.aio.client import Client

#: A server answers at once; a host that is down does not.
CONNECT_S: Final = 3.0

_CLOSE_S: Final = 0.5

#: The oldest server whose JetStream does what we need.
OLDEST: Final = (2, 10)

_SCHEMES: Final = ("nats", "tls")
_SEED: Final = "SU"


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: authorities that the server's certificate is checked against (empty: those of the
    system), and our own certificate with its key, if the server asks for one."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("tls: cert and key are only used together")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Which server, and who we are there.

    ``url``: ``nats://HOST:PORT`` or ``tls://HOST:PORT``, maybe with ``USER:PASSWORD@``; of a
    cluster, several. ``credentials``: a file from ``nsc`` (``.creds``), with an NKey's seed, or
    with ``USER:PASSWORD``. ``tls``: encrypts, and checks the server's certificate.
    """

    url: str | list[str]
    credentials: str = ""
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("url: no server is given")
        for url in self.urls:
            _check_url(url)

    @property
    def urls(self) -> list[str]:
        """``url``, as a list."""
        return [self.url] if isinstance(self.url, str) else self.url

    @property
    def shown(self) -> str:
        """The servers for people, without passwords."""
        return ", ".join(map(shown, self.urls))

    @property
    def encrypts(self) -> bool:
        """Whether we insist on TLS."""
        return self.tls is not None or any(url.startswith("tls:") for url in self.urls)

    def resolved(self, directory: Path) -> Self:
        """With paths that are relative to ``directory`` made absolute."""
        changes: dict[str, Any] = {}
        if self.credentials:
            changes["credentials"] = str(directory / self.credentials)
        if self.tls is not None:
            files = {key: getattr(self.tls, key) for key in ("ca", "cert", "key")}
            changes["tls"] = Tls(**{k: str(directory / v) for k, v in files.items() if v})
        return msgspec.structs.replace(self, **changes)

    def context(self) -> ssl.SSLContext | None:
        """What encrypts the connection.

        :raises ValueError: a file cannot be read, or is not what it should be; names the key.
        """
        if not self.encrypts:
            return None
        import ssl  # noqa: PLC0415 - every actor knows of these options, and few encrypt

        tls = self.tls or Tls()
        try:
            context = ssl.create_default_context(cafile=tls.ca or None)
        except (ssl.SSLError, OSError) as error:
            raise ValueError(f"tls.ca: {tls.ca}: {_reason(error)}") from error
        if tls.cert:
            try:
                context.load_cert_chain(tls.cert, tls.key, password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise ValueError(f"tls.cert: {tls.cert}, {tls.key}: {_reason(error)}") from error
        return context

    def login(self) -> dict[str, Any]:
        """The credentials, as nats-py is told them.

        :raises ValueError: the file cannot be read, or has none; names the key.
        """
        if not self.credentials:
            return {}
        try:
            text = Path(self.credentials).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"credentials: {self.credentials}: {_reason(error)}") from error
        if "BEGIN NATS USER JWT" in text and "BEGIN USER NKEY SEED" in text:
            return {"user_credentials": self.credentials}
        if text.startswith(_SEED) and text.isalnum():
            return {"nkeys_seed_str": text}
        user, colon, password = text.partition(":")
        if user and colon and text.isprintable():
            return {"user": user, "password": password}
        raise ValueError(
            f"credentials: {self.credentials} has neither a NATS user's JWT and seed, nor the seed "
            "of an NKey, nor USER:PASSWORD in one line"
        )


def check_installed(what: str) -> None:
    """:raises CanInitializationError: nats-py is not installed; ``what`` needs it."""
    for package in ("nats", "nkeys"):
        Needs(package, "nats").check(what)


def shown(url: str) -> str:
    """A server's URL without the password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def connect(
    server: Server, name: str, *, reconnects: bool = False, **callbacks: Any
) -> Client:
    """A connection to one of the servers.

    :param name: what the server's monitoring shows of us.
    :param reconnects: nats-py connects again by itself when the connection is lost.
    :param callbacks: as those of nats-py: ``error_cb``, ``disconnected_cb``, ``closed_cb``, …
    :raises CanInitializationError: no server can be used; says why.
    """
    check_installed("NATS")
    import asyncio  # noqa: PLC0415 - every actor knows of these options, and few connect

    from nats.aio.client import Client  # noqa: PLC0415 - of an extra
    from nats.errors import Error  # noqa: PLC0415 - likewise

    from canbroker.jetstream.secure_client import SecureClient  # noqa: PLC0415 - likewise

    client = SecureClient() if server.encrypts else Client()
    faults: list[BaseException] = []
    was_connected = False
    told = callbacks.pop("error_cb", None)

    async def on_error(error: Exception) -> None:
        faults[:] = [*faults[-7:], error]
        if told is not None and was_connected:
            await told(error)

    try:
        options = server.login()
        if (context := server.context()) is not None:
            options["tls"] = context
    except ValueError as error:
        raise CanInitializationError(_why(server, [error])) from error
    try:
        await asyncio.wait_for(
            client.connect(
                [*server.urls],
                name=name,
                error_cb=on_error,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0.05,  # type: ignore[arg-type] # likewise
                connect_timeout=CONNECT_S,  # type: ignore[arg-type] # seconds, of wait_for()
                **options,
                **callbacks,
            ),
            CONNECT_S * (2 * len(server.urls) + 1),
        )
    except (Error, OSError, ValueError, TimeoutError) as error:
        await _give_up(client)
        raise CanInitializationError(_why(server, [*faults, error])) from error
    if problem := _version_problem(client):
        await client.close()
        raise CanInitializationError(f"NATS at {server.shown} {problem}")
    was_connected = True
    if reconnects:
        client.options |= {
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
        }
    return client


def _version_problem(client: Client) -> str:
    """What is wrong with the version of the server, if anything."""
    try:
        version = client.connected_server_version
        parts = version.major, version.minor, version.patch
    except (KeyError, TypeError, ValueError):
        return "does not say which version it is"
    if parts[:2] >= OLDEST:
        return ""
    given, oldest = (".".join(map(str, numbers)) for numbers in (parts, OLDEST))
    return f"is version {given}, older than {oldest}"


async def _give_up(client: Client) -> None:
    import asyncio  # noqa: PLC0415 - likewise

    from nats.errors import Error  # noqa: PLC0415 - of an extra

    try:
        async with asyncio.timeout(_CLOSE_S):  # after a failed handshake of TLS it waits for ever
            await client.close()
    except (Error, OSError, TimeoutError) as error:
        del error  # it was not open


def _why(server: Server, faults: list[BaseException]) -> str:
    """The cause that says most: the last that is not a mere consequence."""
    texts = [text for fault in reversed(faults) if (text := _cause(server, fault))]
    return f"NATS at {server.shown}: {texts[0] if texts else 'does not answer'}"


def _cause(server: Server, fault: BaseException) -> str:
    import ssl  # noqa: PLC0415 - likewise

    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        return f"TLS failed: {fault.reason or fault}"
    text = str(fault).removeprefix("nats: ")
    lower = text.lower()
    if "authorization" in lower or "authentication" in lower:
        return "it refuses our credentials" if server.credentials else "it wants credentials"
    if "tls" in lower or "secure connection" in lower:
        return f"TLS failed: {text}"
    if isinstance(fault, TimeoutError) or "timeout" in lower:
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(fault, OSError):
        return os.strerror(fault.errno) if fault.errno else text
    return "" if "no servers" in lower or "connection closed" in lower else text


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.path in {"", "/"}
        is_valid = is_valid and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:  # the port is not a number
        is_valid = False
    if not is_valid:
        raise ValueError(f"url: must be nats://HOST:PORT or tls://HOST:PORT, got {_bare(url)!r}")


def _bare(url: str) -> str:
    """A wrong URL without what may be a password."""
    head, _, tail = url.rpartition("@")
    return tail if head else url


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _no_password() -> str:
    """Instead of a question on the terminal of the broker."""
    raise ValueError("the key is encrypted with a password")
