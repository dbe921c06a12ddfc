"""A directory of keys for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from canbroker.keys import files
from canbroker.keys.identity import KEY_VARIABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of this user's keys, which only this user may write."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    made = files.directory()
    made.mkdir(mode=0o700)
    return made
