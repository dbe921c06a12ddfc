"""What the README shows works as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from canbroker.configuration.broker_file import parse
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_api_in_ten_lines(runtime: Runtime) -> None:
    code = snippets("python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert "ID:      123" in done.stdout
    assert done.stdout.endswith("16 of 32 pass the filter\n")
    assert done.stderr == ""


@pytest.mark.parametrize("code", snippets("python"))
def test_every_snippet_is_python(code: str) -> None:
    compile(code, "README.md", "exec")


def test_the_configuration_is_one() -> None:
    (text,) = snippets("toml")
    assert list(parse(text, "README.md").channels) == ["can0"]


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_commands_exist() -> None:
    commands = set(re.findall(r"^    canbroker (\w+)", README, flags=re.MULTILINE))
    listed = subprocess.run(
        EntryPoint.COMMAND.command("--help"),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    ).stdout
    assert commands <= set(re.findall(r"^  (\w+) ", listed, flags=re.MULTILINE))
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()
