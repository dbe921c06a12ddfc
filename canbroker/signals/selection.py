"""Signals that a program has chosen by name: which they are, and the filters for their messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from canbroker.model.filters import MAX_FILTERS, Filter, FilterSet
from canbroker.model.frame import MAX_EXTENDED_ID, MAX_STANDARD_ID

if TYPE_CHECKING:
    from canbroker.signals.decoder import Decoder

#: Message and signal.
Key: TypeAlias = tuple[str, str]

#: Names that an error suggests.
_SUGGESTED: Final = 3


class Selection:
    """The chosen signals of a database. ``filters``: for the frames of their messages."""

    def __init__(self, decoder: Decoder, names: Iterable[str] | None = None) -> None:
        """
        :param names: ``SIGNAL``, or ``MESSAGE.SIGNAL`` where several messages have such a signal;
            ``None``: all signals.
        :raises ValueError: a name is unknown or ambiguous; says which there are.
        """
        self._database = decoder.name
        known = {(info.message, info.name): info for info in decoder.signals()}
        self._keys: dict[str, list[Key]] = {}
        for key in known:
            for name in _names_of(key):
                self._keys.setdefault(name, []).append(key)
        if isinstance(names, str):
            raise ValueError(f"names must be a list of names, got {names!r}")
        chosen = list(known) if names is None else [self._key(name) for name in names]
        self.keys = frozenset(chosen)
        self._infos = {key: known[key] for key in chosen}
        self.filters = _filters(decoder, {message for message, _ in chosen})

    def key(self, name: str) -> Key:
        """The chosen signal with this name.

        :raises ValueError: there is none, or several; says which there are.
        """
        key = self._key(name)
        if key not in self.keys:
            raise ValueError(f"signal {name!r} is not one of those that were asked for")
        return key

    def check_label(self, key: Key, label: str) -> None:
        """:raises ValueError: no value of the signal is called so; says which there are."""
        labels = self._infos[key].labels.values()
        if label not in labels:
            names = ", ".join(map(repr, labels)) or "none"
            raise ValueError(f"signal {key[1]!r} has no value {label!r}; it has {names}")

    def _key(self, name: str) -> Key:
        keys = self._keys.get(name, [])
        if len(keys) == 1:
            return keys[0]
        if keys:
            choices = " or ".join(repr(".".join(key)) for key in keys)
            raise ValueError(f"several messages have a signal {name!r}: say {choices}")
        folded = {known.casefold(): known for known in self._keys}
        near = difflib.get_close_matches(name.casefold(), folded, _SUGGESTED)
        hint = f"; did you mean {' or '.join(repr(folded[each]) for each in near)}?" if near else ""
        raise ValueError(f"no signal {name!r} in {self._database}{hint}")


def _names_of(key: Key) -> set[str]:
    """What a signal may be called: also without the message in a container that it belongs to."""
    message, signal = key
    return {f"{message}.{signal}", signal, signal.rpartition(".")[2]}


def _filters(decoder: Decoder, messages: set[str]) -> FilterSet:
    """Filters for the data frames of these messages; for all if those are too many."""
    from canbroker.signals.decoder import is_addressed  # noqa: PLC0415 - of an extra

    chosen: list[Filter] = []
    for message in decoder.messages:
        if message.name not in messages:
            continue
        extended = message.is_extended_frame
        mask = MAX_EXTENDED_ID if extended else MAX_STANDARD_ID
        if message.protocol == "j1939":  # any priority and sender, and any destination
            mask = 0x03FF0000 if is_addressed(message.frame_id) else 0x03FFFF00
        chosen.append(Filter(message.frame_id, mask, extended, False))
    if len(chosen) > MAX_FILTERS:
        chosen = [Filter(0, 0, None, False)]
    return FilterSet(chosen, nothing=True)
