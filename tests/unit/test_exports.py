"""The public names: all there, and nothing is imported before one of them is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Final

import can
import pytest

import canbroker

#: Names of python-can that are about its own programs and its own log.
NOT_HANDED_ON: Final = {
    *("ctypesutil", "log", "logconvert", "logger", "player", "set_logging_level"),
    *("thread_safe_bus", "viewer"),
}

#: Modules whose names scripts spell out, and what of python-can's is not there.
MODULES: Final = {
    "bit_timing": set(),
    "broadcastmanager": {
        *("BusABC", "MultiRateCyclicSendTaskABC", "ThreadBasedCyclicSendTask"),
    },
    "bus": set(),
    "exceptions": {"error_check"},
    "interface": set(),
    "interfaces": set(),
    "listener": set(),
    "message": set(),
    "notifier": set(),
}


@pytest.mark.parametrize("name", canbroker.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(canbroker, name)
    home = importlib.import_module(getattr(value, "__module__", "canbroker"))
    assert getattr(home, name, value) is value
    assert name in dir(canbroker)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'canbroker' has no attribute 'Buss'"):
        getattr(canbroker, "Buss")  # noqa: B009 - mypy knows better
    with pytest.raises(AttributeError, match=r"'canbroker\.bit_timing' has no attribute 'Timing'"):
        getattr(canbroker.bit_timing, "Timing")  # noqa: B009 - as above


# ------------------------------------------------------------------------- import canbroker as can


@pytest.mark.parametrize("name", sorted(set(can.__all__) - NOT_HANDED_ON))
def test_names_of_python_can_are_ours_or_its_own(name: str) -> None:
    value = getattr(canbroker, name)
    ours = name in canbroker.__all__ or name in MODULES
    assert ours or value is getattr(can, name)


@pytest.mark.parametrize("module", MODULES)
def test_modules_of_python_can_are_names(module: str) -> None:
    ours, theirs = getattr(canbroker, module), getattr(can, module)
    assert ours is importlib.import_module(f"canbroker.{module}")
    theirs_own = {
        name
        for name, value in vars(theirs).items()
        if getattr(value, "__module__", "") == theirs.__name__ and not name.startswith("_")
    }
    if module == "interfaces":
        theirs_own = {"BACKENDS", "VALID_INTERFACES"}
    for name in theirs_own - MODULES[module]:
        value = getattr(ours, name)
        assert value is getattr(canbroker, name, getattr(theirs, name, None))


def test_modules_of_python_can_have_names_in_a_process_that_has_used_none() -> None:
    program = """
import canbroker as can
assert can.interface.Bus is can.Bus
assert can.bus.BusState is can.BusState
assert can.exceptions.CanError is can.CanError
assert can.message.Message is can.Message
assert can.notifier.Notifier is can.Notifier
assert can.bit_timing.BitTiming is can.BitTiming
assert "virtual" in can.interfaces.VALID_INTERFACES
from canbroker.interface import Bus
from canbroker import Logger
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("canbroker.Logger('x.asc')", "Logger"),
        ("from canbroker import BitTiming", "BitTiming"),
        ("canbroker.bit_timing.BitTimingFd", "BitTimingFd"),
        ("canbroker.interfaces.VALID_INTERFACES", "VALID_INTERFACES"),
    ],
)
def test_names_of_python_can_without_it_name_the_extra(statement: str, name: str) -> None:
    program = f"import sys; sys.modules['can'] = None\nimport canbroker\n{statement}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {name} is python-can's, which is not installed: "
        "pip install canbroker[python-can]"
    )


# ------------------------------------------------------------------------------ what it costs


def test_importing_loads_nothing_else() -> None:
    def loaded(statement: str) -> set[str]:
        program = f"import sys\n{statement}\nprint(*sys.modules)"
        output = subprocess.run(
            [sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True
        ).stdout
        return set(output.split())

    assert loaded("import canbroker") == loaded("import __future__, importlib, typing") | {
        "canbroker"
    }
