"""Who may read and write the files of keys, and that none is ever half written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.keys import files
from tests.support.systems import is_root, modes, posix


def written(path: Path, mode: int) -> Path:
    path.write_text("content")
    path.chmod(mode)
    return path


def test_where_keys_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert files.directory() == tmp_path / "canbroker"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert files.directory() == Path.home() / ".config" / "canbroker"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert files.directory() == Path.home() / ".config" / "canbroker"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(CanInitializationError, match="set XDG_CONFIG_HOME or CANBROKER_KEY"):
        files.directory()


# ----------------------------------------------------------------------------------------- rights


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_secret_that_only_its_owner_reads(folder: Path, mode: int) -> None:
    assert files.read_secret(written(folder / "x", mode)) == b"content"


@pytest.mark.parametrize(
    ("mode", "may", "right"),
    [
        (0o640, "read", "600"),
        (0o604, "read", "600"),
        (0o644, "read", "600"),
        (0o660, "write", "600"),
        (0o610, "read", "600"),
        (0o444, "read", "400"),
        (0o777, "write", "700"),
    ],
)
@modes
def test_a_secret_that_others_may_use_is_refused(
    folder: Path, mode: int, may: str, right: str
) -> None:
    path = written(folder / "x", mode)
    with pytest.raises(CanInitializationError) as caught:
        files.read_secret(path)
    assert str(caught.value) == (
        f"other users may {may} {path} (mode {mode:o}, must be {right}): chmod {right} {path}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444])
def test_what_says_whom_to_trust_may_be_read_by_others(folder: Path, mode: int) -> None:
    assert files.read_trusted(written(folder / "x", mode)) == b"content"


@pytest.mark.parametrize(("mode", "right"), [(0o664, "644"), (0o666, "644"), (0o622, "600")])
@modes
def test_what_others_may_write_is_refused(folder: Path, mode: int, right: str) -> None:
    path = written(folder / "x", mode)
    with pytest.raises(CanInitializationError, match=rf"other users may write .*: chmod {right} "):
        files.read_trusted(path)


@pytest.mark.parametrize("read", [files.read_secret, files.read_trusted])
@modes
def test_a_directory_that_others_may_write_is_refused(folder: Path, read: object) -> None:
    path = written(folder / "x", 0o600)
    folder.chmod(0o770)
    with pytest.raises(CanInitializationError, match=f"may write {folder} .*: chmod 750 {folder}"):
        read(path)  # type: ignore[operator]


@modes
def test_the_directory_of_what_a_link_leads_to_counts_too(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "repository"
    real.mkdir(mode=0o700)
    (folder / "x").symlink_to(written(real / "x", 0o600))
    assert files.read_secret(folder / "x") == b"content"
    real.chmod(0o777)
    with pytest.raises(CanInitializationError, match=f"other users may write {real} "):
        files.read_secret(folder / "x")


@modes
def test_a_key_may_be_made_in_a_directory_for_all(folder: Path) -> None:
    folder.chmod(0o1777)
    files.create(folder / "x", "content")
    if is_root():  # as /tmp, where only the owner of a file may replace it
        assert files.read_secret(folder / "x") == b"content"
    folder.chmod(0o777)
    with pytest.raises(CanInitializationError, match=f"other users may write {folder} "):
        files.read_secret(folder / "x")


@modes
def test_the_command_that_mends_the_mode_can_be_pasted(folder: Path) -> None:
    path = written(folder / "a key", 0o644)
    with pytest.raises(CanInitializationError) as caught:
        files.read_secret(path)
    assert str(caught.value).endswith(f": chmod 600 '{path}'")
    assert os.system(str(caught.value).rpartition(": ")[2]) == 0  # noqa: S605 - that is the point
    assert files.read_secret(path) == b"content"


@modes
def test_a_file_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder / "x", 0o600)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    said = f"x belongs to user {owner}, and this is user {owner + 1}"
    with pytest.raises(CanInitializationError, match=said):
        files.read_secret(path)


def test_root_may_say_whom_to_trust_and_has_no_secret_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_root():
        pytest.skip("only root can make a file of root's")
    path = written(folder / "x", 0o644)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert files.read_trusted(path) == b"content"
    path.chmod(0o600)
    with pytest.raises(CanInitializationError, match="belongs to user 0"):
        files.read_secret(path)


@posix("pipes among its files")
def test_what_is_not_a_file_is_refused_and_waited_for_by_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o600)
    (folder / "directory").mkdir(mode=0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(CanInitializationError, match=f"{name} is not a file"):
            files.read_secret(folder / name)


def test_what_is_not_there(folder: Path) -> None:
    assert files.read_secret(folder / "x") is None
    assert files.read_secret(folder / "nowhere" / "x") is None
    assert files.signature(folder / "x") is None


# ---------------------------------------------------------------------------------------- writing


def test_a_file_that_is_there_is_not_overwritten(folder: Path) -> None:
    (folder / "dangling").symlink_to(folder / "nowhere")
    written(folder / "x", 0o600)
    for name in ("x", "dangling"):
        with pytest.raises(CanInitializationError, match=f"{name} is there already, and is not "):
            files.create(folder / name, "new")
    assert not (folder / "nowhere").exists()
    assert (folder / "x").read_text() == "content"


def test_a_new_file_that_cannot_be_written_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CanInitializationError, match=r"cannot write .*/x: No space left on device"):
        files.create(folder / "x", "new")
    assert list(folder.iterdir()) == []


@modes
def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".config" / "x"
    before = os.umask(0)
    try:
        with files.locked(path):
            files.replace(path, "text\n")
        files.create(path.with_name("y"), "text\n")
    finally:
        os.umask(before)
    for made in (path, path.with_name("y")):
        assert made.read_bytes() == b"text\n"
        assert made.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@modes
def test_a_file_that_is_replaced_keeps_its_mode_and_its_place(folder: Path) -> None:
    real = written(folder / "real", 0o640)
    link = folder / "link"
    link.symlink_to(real)
    files.replace(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_written_is_as_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder / "x", 0o600)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CanInitializationError, match=r"cannot write .*/x: No space left on device"):
        files.replace(path, "new")
    assert [each.name for each in folder.iterdir()] == ["x"]
    assert path.read_text() == "content"


def test_of_writers_at_once_none_is_lost(folder: Path) -> None:
    path = written(folder / "count", 0o600)
    path.write_text("0")

    def count() -> None:
        for _ in range(25):
            with files.locked(path):
                files.replace(path, str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "100"


def test_a_writer_that_never_ends_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_S", 0.1)
    path = folder / "x"
    with (
        files.locked(path),
        pytest.raises(CanInitializationError, match="another command has been changing the keys"),
        files.locked(path),
    ):
        pass
    with files.locked(path):
        pass
