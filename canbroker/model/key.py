"""Keys of remote peers: 32 bytes of Curve25519, and their text.

A public key is written ``cb1:`` and 43 characters of base64url without padding, a secret one with
``cb1-secret:`` before them, so that neither is ever taken for the other. Shells, URLs and TOML take
both as they are.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import Any, Final, NoReturn, Self

KEY_BYTES: Final = 32

_PUBLIC: Final = "cb1:"
_SECRET: Final = "cb1-secret:"  # noqa: S105 - the prefix of one

#: Characters of 32 bytes in base64 without padding; the last one has two bits that are 0.
_CHARACTERS: Final = 43
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")

#: The field's prime; and, of its curve, each x of a point with an order of 8 or less.
_PRIME: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


class PublicKey:
    """The key by which others know a peer. Equal keys are equal, and hash alike.

    :raises ValueError: not 32 bytes, or not a key that stands for a secret one.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(raw)}")
        if (int.from_bytes(raw, "little") & (1 << 255) - 1) % _PRIME in _LOW_ORDER:
            raise ValueError("a placeholder is not a key: anybody has the secret key to it")
        self._raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that ``text`` spells.

        :raises ValueError: it is not a public key; says why.
        """
        if text.startswith(_SECRET):
            raise ValueError(
                "this is a secret key, which only its owner may have; a public key starts with "
                f"{_PUBLIC} (canbroker keys show)"
            )
        if not text.startswith(_PUBLIC):
            # No more of it is quoted: it may be a secret in another notation.
            raise ValueError(f"a key starts with {_PUBLIC}, this one with {text[:4]!r}")
        return cls(_decoded(text.removeprefix(_PUBLIC), _PUBLIC))

    @property
    def raw(self) -> bytes:
        """Its 32 bytes."""
        return self._raw

    def __str__(self) -> str:
        return _PUBLIC + _encoded(self._raw)

    def __repr__(self) -> str:
        return f"<PublicKey {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)


class SecretKey:  # noqa: PLW1641 - nothing looks secrets up
    """The key that proves who a peer is. Only :meth:`reveal` and :meth:`reveal_text` show it.

    It cannot be pickled, copied or printed.

    :raises ValueError: not 32 bytes.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(raw)}")
        self._raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that ``text`` spells.

        :raises ValueError: it is not a secret key; says why, and nothing of ``text``.
        """
        if text.startswith(_PUBLIC):
            raise ValueError(f"this is a public key; a secret one starts with {_SECRET}")
        if not text.startswith(_SECRET):
            raise ValueError(f"a secret key starts with {_SECRET}")
        return cls(_decoded(text.removeprefix(_SECRET), _SECRET))

    def reveal(self) -> bytes:
        """Its 32 bytes: for ZeroMQ."""
        return self._raw

    def reveal_text(self) -> str:
        """As :meth:`parse` reads it: for the file that keeps it."""
        return _SECRET + _encoded(self._raw)

    def __repr__(self) -> str:
        return "<SecretKey>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self._raw, other._raw)

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise TypeError("a secret key is neither pickled nor copied")


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(digits: str, prefix: str) -> bytes:
    """:raises ValueError: ``digits`` are not those of 32 bytes. Quotes one foreign character."""
    foreign = _FOREIGN.search(digits)
    if foreign is not None:
        raise ValueError(
            f"after {prefix} a key has letters, digits, - and _ only; "
            f"character {foreign.start() + 1} is {foreign[0]!r}"
        )
    if len(digits) != _CHARACTERS:
        raise ValueError(
            f"after {prefix} a key has {_CHARACTERS} characters, got {len(digits)}; "
            "was it copied whole?"
        )
    raw = base64.urlsafe_b64decode(digits + "=")
    if _encoded(raw) != digits:
        raise ValueError(
            f"the last character of the key cannot be {digits[-1]!r}; was it mistyped?"
        )
    return raw
