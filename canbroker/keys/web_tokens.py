"""The tokens of the web page: a file of this user's with one for each role.

::

    observe = "…"
    transmit = "…"

A token permits on the page what its role permits. Removing the file revokes both tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canbroker.errors import CanInitializationError
from canbroker.keys import files
from canbroker.keys.authorized import Role
from canbroker.system import toml_file

#: The roles that have a token. Nothing on the page needs more than the right to transmit.
ROLES: Final = (Role.OBSERVE, Role.TRANSMIT)

_BYTES: Final = 32
_LEAST: Final = 32  # characters; fewer are not a token that we have made
_MOST: Final = 256

_HEADER: Final = (
    "# The tokens of canbroker's web page: for you alone. 'canbroker web' prints them.\n"
    "# Remove this file to revoke them; the next 'canbroker web' makes others.\n"
)


@dataclass(frozen=True)
class Tokens:
    """The tokens in force, by role. Without any, nobody has access."""

    by_role: dict[Role, str]

    def __repr__(self) -> str:
        return f"<Tokens {', '.join(map(str, self.by_role))}>"  # never the tokens

    def role_of(self, token: str) -> Role | None:
        """The role of whoever shows this token."""
        return self._matching(token, lambda known: known)

    def role_of_cookie(self, cookie: str) -> Role | None:
        """The role of a browser that has shown a token before."""
        return self._matching(cookie, cookie_of)

    def _matching(self, shown: str, form: Callable[[str], str]) -> Role | None:
        found = None
        for role, token in self.by_role.items():  # all of them: the time tells nothing
            if hmac.compare_digest(form(token).encode(), shown.encode("utf-8", "replace")):
                found = role
        return found


NONE: Final = Tokens({})


def cookie_of(token: str) -> str:
    """What a browser keeps instead of the token, which cannot be made of it."""
    return hmac.new(token.encode(), b"canbroker web page", hashlib.sha256).hexdigest()


def tokens_path() -> Path:
    """The file of this user's tokens."""
    return files.directory() / "web-tokens.toml"


def load(path: Path) -> Tokens:
    """The tokens in the file; none if it is not there.

    :raises CanInitializationError: it cannot be read, has a fault, or others may read it. The
        message has nothing of the tokens.
    """
    content = files.read_secret(path)
    if content is None:
        return NONE
    source, document = toml_file.parse(toml_file.decoded(content, str(path)), str(path))
    source.refuse_unknown((), document, tuple(map(str, ROLES)))
    by_role = {}
    for role in ROLES:
        token = document.get(str(role))
        if not isinstance(token, str) or not _LEAST <= len(token) <= _MOST:
            raise source.fault((str(role),), f"must be a text of {_LEAST} to {_MOST} characters")
        by_role[role] = token
    if len(set(by_role.values())) < len(by_role):
        raise source.fault((), "each role must have another token")
    return Tokens(by_role)


def load_or_create(path: Path) -> Tokens:
    """The tokens in the file, which is made if it is not there.

    :raises CanInitializationError: as :func:`load`; or it cannot be written.
    """
    found = load(path)
    if found.by_role:
        return found
    with files.locked(path):  # another process may do the same
        found = load(path)
        if not found.by_role:
            lines = [f'{role} = "{secrets.token_urlsafe(_BYTES)}"\n' for role in ROLES]
            files.replace(path, _HEADER + "".join(lines))
            found = load(path)
    return found


class TokensFile:
    """The tokens in force, which follow their file. One thread.

    With a fault in the file, nobody has access: it may have been changed to revoke something.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file if it is not there.

        :raises CanInitializationError: as :func:`load_or_create`.
        """
        self._path = path
        self.current = load_or_create(path)
        self._seen = files.signature(path)
        self.fault = ""

    def poll(self) -> bool:
        """Takes over a change of the file; returns whether other tokens are in force."""
        seen = files.signature(self._path)
        if seen == self._seen:
            return False
        self._seen, before = seen, self.current
        try:
            self.current, self.fault = load(self._path), ""
        except CanInitializationError as error:
            self.current, self.fault = NONE, str(error)
        return self.current != before
