"""Where the web page listens, and what may be sent from it: the ``[web]`` table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec

from canbroker.keys.transmit_table import TransmitTable
from canbroker.transport.address import is_loopback

if TYPE_CHECKING:
    import ssl

_LISTEN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]{1,253}|\*)):([0-9]{1,5})")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,251}[a-z0-9])?")
_MAX_PORT: Final = 65_535


class WebAddress(NamedTuple):
    """Where the page listens; ``host`` is ``*`` for every address of this host."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> WebAddress:
        """:raises ValueError: ``text`` is not ``HOST:PORT``."""
        match = _LISTEN.fullmatch(text)
        if match is None or int(match[3]) > _MAX_PORT:
            raise ValueError(f"must be HOST:PORT, 127.0.0.1:8080 or [::1]:8080, got {text!r}")
        return cls(match[1] or match[2].lower(), int(match[3]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return self.host != "*" and is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class WebOptions(TransmitTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``[web]`` table.

    ``listen``: where browsers connect, ``HOST:PORT``; ``None``: nowhere. If that is not on the
    loopback interface, ``tls_cert`` and ``tls_key`` are PEM files, relative to the configuration's.
    ``names``: further names of this host by which browsers may ask for the page. ``transmit``: the
    identifiers that may be sent from the page; none of them without it.
    """

    listen: str | None = None
    tls_cert: str = ""
    tls_key: str = ""
    names: list[str] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            address = self.address
        except ValueError as error:
            raise ValueError(f"listen: {error}") from error
        if bool(self.tls_cert) != bool(self.tls_key):
            given = "tls_cert" if self.tls_cert else "tls_key"
            raise ValueError(f"{given}: tls_cert and tls_key are only used together")
        if address is not None and not address.is_loopback and not self.tls_cert:
            raise ValueError(
                f"listen: other hosts reach {self.listen!r}, so the page must be encrypted: set "
                "tls_cert and tls_key, or listen at 127.0.0.1"
            )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"names: {name!r} is not the name of a host, in small letters")
        _ = self.ranges  # valid, or that is the error

    @property
    def address(self) -> WebAddress | None:
        """``listen``, which is valid."""
        return None if self.listen is None else WebAddress.parse(self.listen)

    def resolved(self, directory: Path) -> Self:
        """With paths that are relative to ``directory`` made absolute."""
        paths = {
            key: str(directory / value)
            for key in ("tls_cert", "tls_key")
            if (value := getattr(self, key))
        }
        return msgspec.structs.replace(self, **paths)

    def tls(self) -> ssl.SSLContext | None:
        """What encrypts connections; ``None`` if nothing does.

        :raises ValueError: a file cannot be read, or they do not belong together; names the key.
        """
        if not self.tls_cert:
            return None
        import ssl  # noqa: PLC0415 - every actor knows of these options, and few encrypt

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for key in ("tls_cert", "tls_key"):
            try:
                with Path(getattr(self, key)).open("rb"):
                    pass
            except OSError as error:
                path = getattr(self, key)
                raise ValueError(f"{key}: cannot read {path}: {error.strerror}") from error
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ValueError(
                f"tls_cert: {self.tls_cert} and {self.tls_key} are not a certificate and its key "
                f"in PEM form: {error}"
            ) from error
        return context


def _no_password() -> str:
    """Instead of a question on the terminal of the broker."""
    raise ValueError("the key is encrypted with a password")
