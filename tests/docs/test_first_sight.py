"""The first look: two pictures that explain canbroker, and pages that say what they are for."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from canbroker.actors.kinds import KINDS
from tests.docs.pages import DOCS, NAVIGATION, ROOT, text_of

_PICTURES = {"architecture.svg", "demo.svg"}
_SVG = "{http://www.w3.org/2000/svg}"
#: What begins a line that is not a sentence: a list, table, block, directive, heading, picture.
_NOT_PROSE = re.compile(r"[-*+|`~:#!<>=&\[]|\d+\. ")


def _parsed(picture: str) -> ET.Element:
    return ET.fromstring((DOCS / "images" / picture).read_text())  # noqa: S314 - our own file


def _words(element: ET.Element) -> str:
    """The text that the picture shows, without its title and description."""
    shown = [" ".join(text.itertext()) for text in element.iter(f"{_SVG}text")]
    return " ".join(shown).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("picture", sorted(_PICTURES))
def test_a_picture_says_what_it_shows(picture: str) -> None:
    svg = _parsed(picture)
    assert svg.tag == f"{_SVG}svg"
    for name in ("title", "desc"):
        element = svg.find(f"{_SVG}{name}")
        assert element is not None
        assert element.text
        assert str(element.get("id")) in str(svg.get("aria-labelledby")).split()


@pytest.mark.parametrize("picture", sorted(_PICTURES))
def test_a_picture_fetches_nothing(picture: str) -> None:
    text = (DOCS / "images" / picture).read_text()
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in text


def test_the_architecture_names_both_sides_and_every_kind_of_actor() -> None:
    words = _words(_parsed("architecture.svg")).lower()
    for name in ["your processes", "the broker's processes", "broker", "adapter", *KINDS]:
        assert name in words, name


@pytest.mark.parametrize("flow", ["control", "frames out", "frames in", "state"])
def test_the_architecture_names_what_flows(flow: str) -> None:
    assert flow in _words(_parsed("architecture.svg"))


def test_the_picture_of_the_demo_shows_its_command_and_its_result() -> None:
    words = _words(_parsed("demo.svg"))
    assert "$ canbroker demo" in words
    assert re.search(r"lost 0 — ledger\s+exact", words)


def test_the_readme_and_the_first_page_show_both_pictures() -> None:
    readme = (ROOT / "README.md").read_text()
    for picture in _PICTURES:
        assert f"](docs/images/{picture})" in readme
        assert f"](images/{picture})" in text_of("index.md")


@pytest.mark.parametrize("page", NAVIGATION)
def test_a_page_begins_with_its_title_and_a_sentence(page: str) -> None:
    title, sentence, *_ = [line for line in text_of(page).splitlines() if line.strip()]
    assert title.startswith("# ")
    assert not _NOT_PROSE.match(sentence), sentence
    assert re.search(r"[.:](\s|$)", sentence), sentence


def test_the_documentation_has_a_search() -> None:
    _, plugins = (ROOT / "mkdocs.yml").read_text().split("\nplugins:\n")
    assert "  - search\n" in plugins
