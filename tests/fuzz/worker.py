"""Runs one target under atheris: ``python -m tests.fuzz.worker <target> <libFuzzer's arguments>``.

atheris ends the process itself, with 0 if the target held.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["canbroker"]):
    from tests.fuzz.targets import PACKED, TARGETS
from tests.fuzz.mutation import mutated


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    changed = mutated(data, seed, lambda data: bytes(atheris.Mutate(data, max(len(data), 1))))
    return changed if len(changed) <= max_size else data


def main() -> None:
    """Fuzzes until libFuzzer's arguments say that it is enough, or the target raises."""
    name, *arguments = sys.argv[1:]
    options = {"custom_mutator": _mutate} if name in PACKED else {}
    # libFuzzer starts itself again to merge, through a shell.
    again = f"{sys.executable} -m tests.fuzz.worker {name}"
    atheris.Setup([again, *arguments], TARGETS[name], **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
