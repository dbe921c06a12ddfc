"""CONTRIBUTING.md matches the code: its map has every package, its recipes every file."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import canbroker
from canbroker.actors.kinds import KINDS
from canbroker.backends import BACKENDS
from canbroker.cli import COMMANDS
from canbroker.logs.formats import FORMATS
from tests.docs.pages import ROOT

TEXT: Final = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGE: Final = Path(canbroker.__file__).parent

#: recipe -> what is there today that was made by it
MADE: Final[Mapping[str, list[str]]] = {
    "Add a backend": list(BACKENDS),
    "Add an actor kind": list(KINDS),
    "Add a command": list(COMMANDS),
    "Add a file format": [
        name for name, form in FORMATS.items() if not form.needs or form.needs.package == "can"
    ],
}

_PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+)?|[\w-]+\.(?:md|toml|yml|txt))`")
_IDENTIFIER = re.compile(r"`([A-Za-z_]\w+)`")


def section(title: str, text: str = TEXT) -> str:
    found = re.search(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##+ |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found is not None, title
    return found[1]


def items(recipe: str) -> list[str]:
    return re.findall(r"^- (.*?)(?=^- |^$|\Z)", section(recipe), flags=re.MULTILINE | re.DOTALL)


def files(recipe: str) -> set[str]:
    return {path for item in items(recipe) for path in _PATH.findall(item)}


# --------------------------------------------------------------------------------------------- map


def picture() -> str:
    return section("The map").split("```")[1]


def test_the_map_has_every_package_and_no_other() -> None:
    packages = {
        f"{init.parent.name}/" for init in PACKAGE.rglob("__init__.py") if init.parent != PACKAGE
    }
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\b[a-z_]+(?:/|\.py)", picture())) == packages | modules


def test_the_ground_is_drawn_in_the_order_of_its_layers() -> None:
    ground = picture().partition("┬")[2].partition("on top of both sides")[0]
    drawn = re.findall(r"^ +([a-z_]+)(?:/|\.py)", ground, flags=re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    ranks = {name.strip(): rank for rank, row in enumerate(layers) for name in row.split("|")}
    assert len(drawn) > 5
    assert [ranks[name] for name in drawn] == sorted(ranks[name] for name in drawn)


# ----------------------------------------------------------------------------------------- recipes


def test_every_recipe_is_tested() -> None:
    assert re.findall(r"^### (.*)", section_of_recipes(), flags=re.MULTILINE) == list(MADE)


def section_of_recipes() -> str:
    return TEXT.partition("## Recipes\n")[2].partition("\n## ")[0]


def test_every_file_that_the_page_names_exists() -> None:
    named = set(_PATH.findall(TEXT))
    assert len(named) > 30
    for path in named:
        if "NAME" not in path:
            assert (ROOT / path).exists() or path == ".venv", path


@pytest.mark.parametrize("recipe", MADE)
def test_what_is_there_has_the_files_that_the_recipe_asks_for(recipe: str) -> None:
    """Where an item names several, such as a module or a package: one of them."""
    asked = [paths for item in items(recipe) if (paths := templates(item))]
    assert asked
    for name in MADE[recipe]:
        for paths in asked:
            candidates = [ROOT / path.replace("NAME", name) for path in paths]
            assert any(path.exists() for path in candidates), candidates


def templates(item: str) -> list[str]:
    return [path for path in _PATH.findall(item) if "NAME" in path]


@pytest.mark.parametrize("recipe", MADE)
def test_what_an_item_names_is_in_one_of_its_files(recipe: str) -> None:
    """For example, that ``BACKENDS`` is in the module that has to get a row."""
    for item in items(recipe):
        beginning = item.partition(": ")[0]
        paths = [path for path in _PATH.findall(beginning) if "NAME" not in path]
        text = "".join((ROOT / path).read_text() for path in paths)
        for name in set(_IDENTIFIER.findall(item)) - {"NAME"} if paths else ():
            assert re.search(rf"\b{name}\b", text), f"{name} is not in {paths}"


def test_every_module_that_lists_interfaces_is_in_the_recipe_of_a_backend() -> None:
    of_one_backend = set(PACKAGE.glob("backends/*/*.py"))
    for path in set(modules()) - of_one_backend:
        if any(len(names & set(BACKENDS)) > 1 for names in literal_sets(path)):
            assert path.relative_to(ROOT).as_posix() in files("Add a backend")


def test_every_module_that_reads_or_writes_logs_is_in_the_recipe_of_a_format() -> None:
    for path in modules():
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("canbroker.logs")
            for alias in node.names
        }
        if imported & {"LogReader", "format_log_line", "parse_log_line"}:
            assert path.relative_to(ROOT).as_posix() in files("Add a file format")


def modules() -> Iterator[Path]:
    return PACKAGE.rglob("*.py")


def literal_sets(path: Path) -> Iterator[set[object]]:
    """The constants of each set, list, tuple or dict that a module spells out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Set | ast.List | ast.Tuple):
            yield {each.value for each in node.elts if isinstance(each, ast.Constant)}
        elif isinstance(node, ast.Dict):
            yield {each.value for each in node.keys if isinstance(each, ast.Constant)}
