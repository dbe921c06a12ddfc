"""What the documentation names is there, and what there is it names."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import canbroker
from tests.docs.pages import DOCS, PAGES, ROOT, text_of

_DIRECTIVE = re.compile(r"^::: ([\w.]+)\n(?:    options:\n((?:      .*\n)+))?", flags=re.MULTILINE)


def test_the_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", text_of(page)):
            assert ((DOCS / page).parent / target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in [*PAGES, *(f"design/{path.name}" for path in (DOCS / "design").glob("*.md"))]:
        assert f"- {page}" in navigation, page


def test_each_guarantee_names_tests_that_exist() -> None:
    _, *guarantees = text_of("guarantees.md").split("\n## ")
    for guarantee in guarantees:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", guarantee)
        assert named, guarantee.splitlines()[0]
        for file, function in named:
            assert function in _functions(ROOT / file), f"{file}::{function}"


def test_files_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:tests|tools|examples|configs|docs)/[\w/.-]*)", text_of(page)):
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_modules_that_the_design_names_exist() -> None:
    modules = [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("canbroker/**/*.py")]
    modules += [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("tests/**/*.py")]
    for page in (DOCS / "design").glob("*.md"):
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text()):
            assert any(module.endswith(f"/{name}") for module in modules), f"{page.name}: {name}"


def test_the_map_of_the_design_names_every_package() -> None:
    shown = (DOCS / "design" / "README.md").read_text()
    for init in (ROOT / "canbroker").glob("*/__init__.py"):
        assert f"| `{init.parent.name}/` |" in shown, init.parent.name


def test_the_reference_has_every_public_name() -> None:
    documented = [thing for page in PAGES for thing in _documented(text_of(page))]
    for name in canbroker.__all__:
        if name == "rc":  # a dict; prose
            assert "`canbroker.rc`" in text_of("reference/configuration.md")
            continue
        thing = getattr(canbroker, name)
        assert any(thing is other for other in documented), name
        assert thing.__doc__, name


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<p>As :meth:<code>~Bus.send</code>::</p>", "<p>As <code>Bus.send</code>:</p>"),
        ("<pre>x</pre><p>::</p>", "<pre>x</pre>"),
        ("<code>a::b</code>", "<code>a::b</code>"),
        (
            "<p>Examples:\n  send 1\n  send 2\nBoth work.</p>",
            "<p>Examples:</p>\n<pre><code>send 1\nsend 2\n</code></pre>\n<p>Both work.</p>",
        ),
    ],
)
def test_docstrings_are_shown_without_sphinxs_marks(written: str, shown: str) -> None:
    spec = importlib.util.spec_from_file_location("mkdocs_roles", ROOT / "tools/mkdocs_roles.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    assert hook.on_page_content(written, page=None) == shown


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def _documented(text: str) -> list[Any]:
    """The objects that the directives of mkdocstrings on a page name."""
    found: list[Any] = []
    for name, options in _DIRECTIVE.findall(text):
        if name == "mkdocs":  # mkdocs-click's
            continue
        members = re.search(r"(?<!_)members: \[(.*)\]", options)
        if members is not None:
            module = importlib.import_module(name)
            found += [getattr(module, member.strip()) for member in members[1].split(",")]
        else:
            home, _, attribute = name.rpartition(".")
            try:
                found.append(getattr(importlib.import_module(home), attribute))
            except ModuleNotFoundError as error:
                if error.name != "cantools":  # which the extra "signals" has
                    raise
    return found
