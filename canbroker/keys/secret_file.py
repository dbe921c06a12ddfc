"""A file with one secret key: a user's identity, or the key of a broker."""

from __future__ import annotations

from pathlib import Path

from canbroker.errors import CanInitializationError
from canbroker.keys import files
from canbroker.model.key import SecretKey
from canbroker.transport import curve


def load(path: Path) -> SecretKey | None:
    """The key in the file ``path``; ``None`` if there is no file.

    :raises CanInitializationError: as :func:`files.read_secret` and :func:`parse`.
    """
    content = files.read_secret(path)
    return None if content is None else parse(content, str(path))


def parse(content: bytes, path: str) -> SecretKey:
    """The key in ``content``: the only line that is neither empty nor a comment.

    :raises CanInitializationError: there is none, or more; names file and line, and nothing of what
        is there, which may be most of a secret.
    """
    found: SecretKey | None = None
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        fault = "a second key; a file has one" if found is not None else None
        if fault is None:
            try:
                found = SecretKey.parse(text)
            except ValueError as error:
                fault = str(error)
        if fault is not None:
            raise CanInitializationError(f"{path}, line {number}: {fault}")
    if found is None:
        raise CanInitializationError(f"{path}: contains no key")
    return found


def create(path: Path, secret: SecretKey) -> None:
    """Writes the key to a new file, for this user alone.

    :raises CanInitializationError: the file is there already, or cannot be written.
    """
    public = curve.public_of(secret)
    header = f"# A secret key of canbroker: for you alone. The public key to it is\n# {public}\n"
    files.create(path, f"{header}{secret.reveal_text()}\n")
