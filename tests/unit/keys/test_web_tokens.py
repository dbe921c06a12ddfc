"""The tokens of the web page, and their file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from canbroker import CanInitializationError
from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import NONE, ROLES, TokensFile, cookie_of, load, load_or_create
from tests.support.systems import modes


def test_they_are_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "web-tokens.toml"
    assert load(path) == NONE
    made = load_or_create(path)
    assert load_or_create(path) == made == load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(made.by_role.values())) == len(ROLES)
    assert all(token not in repr(made) for token in made.by_role.values())


def test_a_token_says_its_role_and_so_does_its_cookie(tmp_path: Path) -> None:
    tokens = load_or_create(tmp_path / "keys" / "t.toml")
    for role, token in tokens.by_role.items():
        assert tokens.role_of(token) is role
        assert tokens.role_of_cookie(cookie_of(token)) is role
        assert tokens.role_of_cookie(token) is None
        assert tokens.role_of(cookie_of(token)) is None
    for wrong in ("", "x", "\udcff", "é" * 50):
        assert tokens.role_of(wrong) is None
        assert NONE.role_of(wrong) is None
    assert set(tokens.by_role) == {Role.OBSERVE, Role.TRANSMIT}


@pytest.mark.parametrize(
    "text",
    ["", 'observe = "x"', "observe = 5", "=", f'observe = "{"a" * 40}"\ntransmit = "{"a" * 40}"'],
)
def test_a_file_with_a_fault_lets_nobody_in(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys" / "t.toml"
    load_or_create(path)
    file = TokensFile(path)
    path.write_text(text)
    assert file.poll()
    assert file.current == NONE
    assert "t.toml" in file.fault
    assert "a" * 40 not in file.fault


@modes
def test_others_may_not_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "t.toml"
    load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(CanInitializationError, match="chmod 600"):
        load(path)


def test_a_file_that_is_removed_revokes(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "t.toml"
    file = TokensFile(path)
    before = file.current
    assert not file.poll()
    path.unlink()
    assert file.poll()
    assert file.current == NONE
    load_or_create(path)
    assert file.poll()
    assert file.current not in (NONE, before)
