"""Wire protocol, version 1: pure bytes <-> objects. Specified in ``docs/protocol.md``."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec

VERSION: Final = 1

#: No message of the protocol is larger; listening sockets refuse what is.
MAX_MESSAGE_BYTES: Final = 1 << 20

#: A client's name for itself, in topics and requests: letters, digits, ``_`` and ``-``.
CLIENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,32}\Z"
ClientId = Annotated[str, msgspec.Meta(pattern=CLIENT_ID_PATTERN)]

#: What msgspec raises for bytes that are not what was expected, nested too deep included.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class WireError(ValueError):
    """Bytes from outside that do not follow the protocol; the message says how."""


class _Versioned(Protocol):
    @property
    def version(self) -> int: ...


_T = TypeVar("_T", bound=_Versioned)


@functools.lru_cache(maxsize=1024)  # a channel has few clients, and each many requests
def is_client_id(name: str) -> bool:
    """Whether ``name`` is a ``ClientId``, where msgspec would look at each anew."""
    return re.match(CLIENT_ID_PATTERN, name) is not None


def decode(what: str, decoder: msgspec.msgpack.Decoder[_T], body: bytes) -> _T:
    """``body`` as the decoder's type.

    :raises WireError: another version, by its number, or what is wrong with the body.
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
    """The version that a body of unknown layout declares, if it does."""
    try:
        head: Any = msgspec.msgpack.decode(body)
    except DECODE_ERRORS:
        return None
    return head[0] if isinstance(head, list) and head and isinstance(head[0], int) else None
