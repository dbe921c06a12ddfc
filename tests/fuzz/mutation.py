"""Changes MessagePack value by value: what is changed byte by byte seldom parses at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import msgpack

_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, 2, -1, 8, 64, 1024, 1025, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1),
    *(0.0, 1.5, float("nan"), float("inf"), -1e300),
    *("", "c1", "x" * 33, "\N{SNOWMAN}", b"", bytes(8), bytes(65), [], {}, [[]]),
    *([0, 1, 0, b""], [1, 2, 8, bytes(64), "c1"], {"": None}, {"event": "state"}),
    *("can0/rx;", "can0/rx?451:7ff;", "active", "virtual"),
)


def mutated(data: bytes, seed: int, fallback: Callable[[bytes], bytes]) -> bytes:
    """``data`` with a few values changed; what does not parse, and one in four, by bytes."""
    chance = random.Random(seed)
    if chance.random() < 0.25:
        return fallback(data)
    try:
        value = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
        for _ in range(chance.randint(1, 3)):
            value = _changed(value, chance)
        return bytes(msgpack.packb(value, unicode_errors="surrogateescape"))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return fallback(data)


def _changed(value: Any, chance: random.Random) -> Any:
    """``value`` with one change, at any depth."""
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        match chance.randrange(8):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case 2:
                return [*value, chance.choice(_VALUES)]
            case _:
                return [*value[:at], _changed(value[at], chance), *value[at + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, "unknown": chance.choice(_VALUES)}
            case _:
                return {**value, key: _changed(value[key], chance)}
    return chance.choice(_VALUES)
