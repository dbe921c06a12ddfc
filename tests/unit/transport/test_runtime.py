"""The runtime directory: who may use it, and that nobody else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.transport.runtime import Runtime
from tests.support.systems import is_root, modes


def test_making_one_touches_nothing(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "new")
    assert str(runtime.address).startswith("ipc:///")
    assert not runtime.directory.exists()


@modes
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_directory_is_for_this_user_alone(tmp_path: Path, umask: int) -> None:
    runtime = Runtime(tmp_path / "parent" / "canbroker")
    before = os.umask(umask)
    try:
        runtime.prepare()
    finally:
        os.umask(before)
    assert runtime.directory.stat().st_mode & 0o777 == 0o700
    runtime.prepare()  # a second time finds it good


@modes
@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o777])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "canbroker"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(CanInitializationError, match=rf"{directory}.*mode {mode:o}, must be 700"):
        Runtime(directory).prepare()


@modes
def test_a_directory_of_someone_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "canbroker"
    directory.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CanInitializationError, match=f"{directory} belongs to user {owner}"):
        Runtime(directory).prepare()


@modes
def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    with pytest.raises(CanInitializationError, match=str(link)):
        Runtime(link).prepare()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CanInitializationError, match=f"cannot use runtime directory {path}"):
            Runtime(path).prepare()


@pytest.mark.skipif(not is_root(), reason="only root can give a directory away")
def test_nothing_is_made_in_another_users_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with pytest.raises(CanInitializationError, match=f"{tmp_path} belongs to user 65534"):
        Runtime(tmp_path / "below" / "canbroker").prepare()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not is_root(), reason="only root can give a directory away")
def test_a_directory_for_all_is_for_us_too(tmp_path: Path) -> None:
    """In a user's own name space ``/tmp`` belongs to nobody that is known there."""
    os.chown(tmp_path, 65_534, 65_534)
    tmp_path.chmod(0o1777)
    Runtime(tmp_path / "canbroker").prepare()


def test_what_is_touched_may_be_removed_meanwhile(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "canbroker")
    runtime.touch()  # it is not there
    runtime.prepare()
    (runtime.directory / "gone").symlink_to("nowhere")
    os.utime(runtime.directory, (0, 0))
    runtime.touch()
    assert runtime.directory.stat().st_mtime > 0
