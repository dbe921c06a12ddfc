"""The runtime directory, its addresses, and the lock between processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.transport.runtime import MAX_SOCKET_PATH, BrokerLock, Runtime
from canbroker.transport.sockets import Context

DOCUMENT = (Path(__file__).parents[3] / "docs/protocol.md").read_text()

#: Takes the lock, or adopts an inherited one; says so, and holds it until told to end.
HOLDER = """
import sys
from pathlib import Path
from canbroker.transport.runtime import BrokerLock
path = Path(sys.argv[1])
lock = BrokerLock(path, int(sys.argv[2])) if len(sys.argv) > 2 else BrokerLock.take(path)
print("held" if lock else "refused", flush=True)
if sys.stdin.readline() == "release\\n":
    lock.release()
"""


@contextmanager
def holder(path: Path, descriptor: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that tries to hold the lock."""
    inherited = [] if descriptor is None else [descriptor]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *map(str, inherited)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=inherited,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], word: str) -> None:
    process.communicate(word + "\n", timeout=30)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name, which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


# ---------------------------------------------------------------------------------- directory


def test_making_one_touches_nothing(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "new")
    assert runtime.address.startswith("ipc:///")
    assert not runtime.directory.exists()


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


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o777])
def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "canbroker"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(CanInitializationError, match=rf"{directory}.*mode {mode:o}, must be 700"):
        Runtime(directory).prepare()


def test_a_directory_of_someone_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "canbroker"
    directory.mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(CanInitializationError, match=f"{directory} belongs to user {owner}"):
        Runtime(directory).prepare()


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


# ---------------------------------------------------------------------------------- addresses


def test_the_default_directory_is_this_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert Runtime.at().address == "ipc:///run/user/7/canbroker/broker"
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    expected = Path(tempfile.gettempdir()) / f"canbroker-{os.getuid()}"
    assert Runtime.at().directory == expected
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert Runtime.at().directory == expected


def test_a_relative_session_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run/user")
    with pytest.raises(CanInitializationError, match="XDG_RUNTIME_DIR is 'run/user'"):
        Runtime.at()


def test_another_users_session_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert Runtime.at().directory == Path(tempfile.gettempdir()) / f"canbroker-{owner + 1}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_nothing_is_made_in_another_users_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with pytest.raises(CanInitializationError, match=f"{tmp_path} belongs to user 65534"):
        Runtime(tmp_path / "below" / "canbroker").prepare()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
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


def test_the_environment_may_name_another_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("CANBROKER_ADDRESS", "ipc:///run/bench/broker")
    assert Runtime.at().address == "ipc:///run/bench/broker"
    assert Runtime.at("ipc:///run/other/broker").address == "ipc:///run/other/broker"
    monkeypatch.setenv("CANBROKER_ADDRESS", "bench")
    with pytest.raises(CanInitializationError, match="'bench'"):
        Runtime.at()
    monkeypatch.setenv("CANBROKER_ADDRESS", "")
    assert Runtime.at().address == "ipc:///run/user/7/canbroker/broker"


def test_an_address_leads_back_to_its_directory() -> None:
    runtime = Runtime(Path("/run/some where/canbroker"))
    assert Runtime.at(runtime.address).directory == runtime.directory


@pytest.mark.parametrize(
    "address",
    [
        "",
        "broker",
        "/run/canbroker/broker",
        "ipc://",
        "ipc://broker",
        "ipc://relative/broker",
        "ipc:///run/canbroker",
        "ipc:///run/canbroker/can0.rx",
        "IPC:///run/canbroker/broker",
        "ipc:///run/a\0b/broker",
        "ipc:///run/a\nb/broker",
        "tcp://127.0.0.1:5555",
    ],
)
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(CanInitializationError, match=re.escape(repr(address))):
        Runtime.at(address)


def test_plain_channel_names_are_file_names() -> None:
    runtime = Runtime(Path("/run/cb"))
    for name in ("can0", "body", "virtual.x", "A-b_C.9", "x" * 32):
        for kind in ("rx", "tx", "ctl"):
            assert runtime.channel_endpoint(name, kind) == f"ipc:///run/cb/{name}.{kind}"


@pytest.mark.parametrize(
    "name",
    ["", "x" * 33, "a b", "a/b", "../up", "ü", "can0\n", "%2F", "broker", "lock", "processes"],
)
def test_other_channel_names_are_hashed(name: str) -> None:
    runtime = Runtime(Path("/run/cb"))
    endpoint = runtime.channel_endpoint(name, "rx")
    assert re.fullmatch(r"ipc:///run/cb/[0-9a-f]{16}\.rx", endpoint)
    assert runtime.channel_endpoint(name, "rx") == endpoint
    assert runtime.channel_endpoint(name + "x", "rx") != endpoint


def test_the_document_hashes_a_name_as_we_do() -> None:
    ((name, digest),) = re.findall(r"its UTF-8 bytes: `(.*?)` is `([0-9a-f]*)`", DOCUMENT)
    endpoint = Runtime(Path("/run/cb")).channel_endpoint(name, "rx")
    assert endpoint == f"ipc:///run/cb/{digest}.rx"


def test_a_directory_that_is_too_long_for_a_socket_is_named(short: Path) -> None:
    longest = f"/{'x' * 32}.ctl"
    fits = short / ("d" * (MAX_SOCKET_PATH - len(str(short)) - 1 - len(longest)))
    endpoint = Runtime(fits).channel_endpoint("x" * 32, "ctl")
    fits.mkdir()
    context = Context()
    try:
        context.replier(endpoint).close()  # the system takes exactly this much
    finally:
        context.close()
    too_long = fits.with_name(fits.name + "d")
    with pytest.raises(CanInitializationError, match=f"{too_long} is too long.*{'x' * 32}"):
        Runtime(too_long).channel_endpoint("x" * 32, "ctl")
    assert Runtime(too_long).address.endswith("/broker")
    with pytest.raises(CanInitializationError, match="'broker' in it would have more than 107"):
        _ = Runtime(short / ("ü" * 50)).address  # two bytes each


# --------------------------------------------------------------------------------------- lock


def test_one_holder_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = BrokerLock.take(path)
    assert lock is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert BrokerLock.take(path) is None
    lock.release()
    assert not path.exists()
    again = BrokerLock.take(path)
    assert again is not None
    again.release()


def test_one_holder_of_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as first:
        assert answer(first) == "held"
        assert BrokerLock.take(path) is None
        with holder(path) as second:
            assert answer(second) == "refused"
        end(first, "release")
    assert not path.exists()


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        assert answer(process) == "held"
        process.kill()
        process.wait()
        assert path.exists()
        lock = BrokerLock.take(path)
        assert lock is not None
        lock.release()


def test_a_lock_that_was_removed_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before its holder released it, locked after: two would hold a lock each."""
    path = tmp_path / "lock"
    leaving = BrokerLock.take(path)
    assert leaving is not None
    opened: list[int] = []
    system_open = os.open

    def open_then_release(*arguments: object) -> int:
        descriptor = system_open(*arguments)  # type: ignore[arg-type]  # passed on as they came
        if not opened:
            leaving.release()
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", open_then_release)
    lock = BrokerLock.take(path)
    monkeypatch.undo()
    assert lock is not None
    assert len(opened) == 2  # the first was of a file that is gone
    assert os.path.samestat(os.fstat(lock.descriptor), path.stat())
    assert BrokerLock.take(path) is None
    lock.release()


def test_an_inherited_lock_is_never_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = BrokerLock.take(path)
    assert lock is not None
    with holder(path, lock.descriptor) as heir:
        lock.hand_over()
        assert answer(heir) == "held"
        assert path.exists()
        assert BrokerLock.take(path) is None
        end(heir, "release")
    assert not path.exists()


def test_a_child_does_not_inherit_the_lock_by_accident(tmp_path: Path) -> None:
    lock = BrokerLock.take(tmp_path / "lock")
    assert lock is not None
    assert not os.get_inheritable(lock.descriptor)
    lock.release()
