"""A list of public keys in a TOML file."""

from __future__ import annotations

from canbroker.model.key import PublicKey
from canbroker.system.toml_file import Source


def public_keys(source: Source, keys: tuple[str, ...], value: object) -> tuple[PublicKey, ...]:
    """``value``, which is at ``keys``, as a list of public keys.

    :raises CanInitializationError: it is not one; names file, key and fault.
    """
    if not isinstance(value, list) or not value:
        raise source.fault(keys, 'must be a list of keys, ["cb1:…"]')
    found: dict[PublicKey, None] = {}
    for number, text in enumerate(value, start=1):
        which = f"key {number}: " if len(value) > 1 else ""
        if not isinstance(text, str):
            raise source.fault(keys, f'{which}must be a text, "cb1:…", got {text!r}')
        try:
            key = PublicKey.parse(text)
        except ValueError as error:
            raise source.fault(keys, f"{which}{error}") from error
        if key in found:
            raise source.fault(keys, f"{which}{key} is there twice")
        found[key] = None
    return tuple(found)
