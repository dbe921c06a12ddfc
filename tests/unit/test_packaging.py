"""What an installation gets, on every system."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

#: Packages without wheels for Windows or macOS; an installation there must not ask for them.
LINUX_ONLY = {"atheris", "pyudev", "uvloop"}

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
]


def test_the_wheel_is_pure() -> None:
    wheel = (distribution("canbroker").read_text("WHEEL") or "").splitlines()
    assert "Root-Is-Purelib: true" in wheel
    assert [line for line in wheel if line.startswith("Tag:")] == ["Tag: py3-none-any"]


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_nothing_is_required_that_the_system_lacks(system: str) -> None:
    required = {
        requirement.name
        for requirement in map(Requirement, REQUIREMENTS)
        if requirement.marker is None or requirement.marker.evaluate({"sys_platform": system})
    }
    assert {"pyzmq", "python-can"} <= required
    assert not required & LINUX_ONLY
