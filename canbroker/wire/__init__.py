"""Wire protocol, version 1: bytes <-> objects, without I/O. See ``docs/protocol.md``."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec

VERSION: Final = 1

#: The largest message of the protocol; listening sockets reject larger ones.
MAX_MESSAGE_BYTES: Final = 1 << 20

#: The name that a client chooses for topics and requests: letters, digits, ``_`` and ``-``.
CLIENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,32}\Z"
ClientId = Annotated[str, msgspec.Meta(pattern=CLIENT_ID_PATTERN)]

#: The exceptions of msgspec for bytes of another form, including those nested too deep.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class WireError(ValueError):
    """Bytes from outside do not follow the protocol; the message says how."""


class _Versioned(Protocol):
    @property
    def version(self) -> int: ...


_T = TypeVar("_T", bound=_Versioned)


@functools.lru_cache(maxsize=1024)  # a channel has few clients, and each sends many requests
def is_client_id(name: str) -> bool:
    """Whether ``name`` is a ``ClientId``. Cached, while msgspec would check each request."""
    return re.match(CLIENT_ID_PATTERN, name) is not None


def decode(what: str, decoder: msgspec.msgpack.Decoder[_T], body: bytes) -> _T:
    """Decodes ``body``; ``what`` names it in messages.

    :raises WireError: the body has another version, or another form.
    """
    try:
        decoded = decoder.decode(body)
    except DECODE_ERRORS as error:
        version = _version_of(body)
        if version in {VERSION, None}:
            raise WireError(f"{what}: {error}") from error
    else:
        version = decoded.version
        if version == VERSION:
            return decoded
    raise WireError(f"{what}: protocol version {version}, this reader knows {VERSION}")


def _version_of(body: bytes) -> int | None:
    """The version in a body of unknown layout, if there is one."""
    try:
        head: Any = msgspec.msgpack.decode(body)
    except DECODE_ERRORS:
        return None
    return head[0] if isinstance(head, list) and head and isinstance(head[0], int) else None
