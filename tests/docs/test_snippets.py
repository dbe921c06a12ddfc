"""Every snippet of the documentation is run, in the order of its page, as a reader would."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from canbroker.backends import configured
from canbroker.config import parse
from canbroker.runtime import Runtime
from tests.docs.pages import DOCS, PAGES, ROOT, Block, blocks

#: Packages that snippets import and that a plain development environment does not have.
_EXTRAS = ("cantools",)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_snippets_of(page: str, runtime: Runtime, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for block in blocks(page):
            if block.title is not None:
                (tmp_path / block.title).write_text(_without_hardware(block))
            if block.language == "python" and block.title is None:
                _skip_without_packages(block)
                _run([sys.executable, "-W", "error", "-c", block.text], tmp_path)
            elif block.language == "sh" and block.background:
                stack.enter_context(_in_background(block.text, tmp_path))
            elif block.language == "sh":
                _run(["/bin/bash", "-eu", "-c", block.text], tmp_path)
            else:
                assert block.title is not None, f"{page}: nobody runs {block.text!r}"
                _check(block)


def _run(command: list[str], place: Path) -> None:
    done = subprocess.run(
        command,
        cwd=place,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@contextmanager
def _in_background(command: str, place: Path) -> Iterator[None]:
    with subprocess.Popen(
        ["/bin/bash", "-c", f"exec {command}"],
        cwd=place,
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any("ready at" in line for line in process.stderr)
        try:
            yield
        finally:
            process.terminate()


def _environment() -> dict[str, str]:
    """That of a user who has canbroker installed."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}:{os.environ['PATH']}"}


def _check(block: Block) -> None:
    """That a file which is shown is what it says."""
    if block.language == "toml":
        assert configured.check(parse(block.text, str(block.title)))
    elif str(block.title).endswith(".service"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.read_string(block.text)
        command = unit["Service"]["ExecStart"].split()
        assert command[0].endswith("/canbroker")
        _run([sys.executable, "-m", "canbroker.cli", command[1], "--help"], ROOT)
    elif block.language == "ini":
        configparser.ConfigParser().read_string(block.text)
    else:
        compile(block.text, str(block.title), "exec")


def _without_hardware(block: Block) -> str:
    """A bench whose channels are virtual, as programs see it the same."""
    if block.language != "toml":
        return block.text
    return re.sub(r'interface = "pcan"\nchannel = ".*"\n', 'interface = "virtual"\n', block.text)


def _skip_without_packages(block: Block) -> None:
    for package in _EXTRAS:
        if package in block.text and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; make ecosystem runs this page")


def test_the_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text()):
            assert ((DOCS / page).parent / target).exists(), f"{page}: {target}"


def test_the_tests_that_are_named_exist() -> None:
    text = (DOCS / "guarantees.md").read_text()
    for name in re.findall(r"[`*]((?:tests/)?[\w/]*test_\w+\.py)", text):
        place = ROOT / name if "/" in name else ROOT / "tests" / "integration" / name
        assert place.exists(), name


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in [*PAGES, *(f"design/{path.name}" for path in (DOCS / "design").glob("*.md"))]:
        assert f"- {page}" in navigation, page
