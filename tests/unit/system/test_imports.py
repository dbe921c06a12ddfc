"""Packages that are not to be loaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from canbroker.system.imports import without


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "package_of_test_imports"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_it_is_missing_within_the_block_only(package: str) -> None:
    with without(package), pytest.raises(ImportError, match=package):
        importlib.import_module(package)
    assert importlib.import_module(package).__name__ == package


def test_it_comes_back_after_an_error(package: str) -> None:
    with pytest.raises(KeyError), without(package):
        raise KeyError
    importlib.import_module(package)


def test_what_is_loaded_stays(package: str) -> None:
    loaded = importlib.import_module(package)
    with without(package):
        assert importlib.import_module(package) is loaded
    assert sys.modules[package] is loaded
