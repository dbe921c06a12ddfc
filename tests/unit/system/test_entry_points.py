"""The table of what is started with ``python -m``."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import canbroker
from canbroker.system.entry_points import EntryPoint


@pytest.mark.parametrize("entry", EntryPoint)
def test_each_entry_is_a_module_that_can_be_run(entry: EntryPoint) -> None:
    found = importlib.util.find_spec(entry.value)
    assert found is not None
    if found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{entry.value}.__main__")
        assert found is not None
    assert found.origin is not None
    assert 'if __name__ == "__main__":' in Path(found.origin).read_text()


def test_a_command_is_recognised_as_what_it_runs() -> None:
    command = EntryPoint.BROKER.command("--lock", "3")
    assert command[0] == sys.executable
    assert command[-2:] == ["--lock", "3"]
    assert EntryPoint.BROKER.is_in(command)
    assert not EntryPoint.ACTOR.is_in(command)


def test_nothing_else_starts_a_module() -> None:
    package = Path(next(iter(canbroker.__path__)))
    table = package / "system" / "entry_points.py"
    others = [path for path in package.rglob("*.py") if path != table]
    assert not [path for path in others if re.search(r'"-m", f?"canbroker', path.read_text())]
