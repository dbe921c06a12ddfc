"""The public names: all there, and nothing is imported before one of them is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import canbroker


@pytest.mark.parametrize("name", canbroker.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(canbroker, name)
    home = importlib.import_module(getattr(value, "__module__", "canbroker"))
    assert getattr(home, name, value) is value
    assert name in dir(canbroker)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'canbroker' has no attribute 'Buss'"):
        getattr(canbroker, "Buss")  # noqa: B009 - mypy knows better


def test_importing_loads_nothing_else() -> None:
    program = (
        "import sys, canbroker\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in "
        "('canbroker', 'zmq', 'msgspec', 'can')))\n"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == "['canbroker']"
