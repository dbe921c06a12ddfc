"""Where a broker and its channels listen, and the addresses that say so."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.transport.address import MAX_SOCKET_PATH, TcpAddress
from canbroker.transport.place import Place, RemotePlace, remote_address
from canbroker.transport.sockets import Context
from tests.support.systems import natively, posix

DOCUMENT = (Path(__file__).parents[3] / "docs/protocol.md").read_text()


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name, which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@posix("numbers of users")
def test_the_default_directory_is_this_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert str(Place.at().broker) == "ipc:///run/user/7/canbroker/broker"
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    expected = Path(tempfile.gettempdir()) / f"canbroker-{os.geteuid()}"
    assert Place.at().directory == expected
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert Place.at().directory == expected


def test_a_relative_session_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run/user")
    with pytest.raises(CanInitializationError, match="XDG_RUNTIME_DIR is 'run/user'"):
        Place.at()


@posix("numbers of users")
def test_another_users_session_directory_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert Place.at().directory == Path(tempfile.gettempdir()) / f"canbroker-{owner + 1}"


def test_the_environment_may_name_another_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("CANBROKER_ADDRESS", "ipc:///run/bench/broker")
    assert str(Place.at().broker) == "ipc:///run/bench/broker"
    assert str(Place.at("ipc:///run/other/broker").broker) == "ipc:///run/other/broker"
    monkeypatch.setenv("CANBROKER_ADDRESS", "bench")
    with pytest.raises(CanInitializationError, match="'bench'"):
        Place.at()
    monkeypatch.setenv("CANBROKER_ADDRESS", "")
    assert str(Place.at().broker) == "ipc:///run/user/7/canbroker/broker"


def test_an_address_leads_back_to_its_directory() -> None:
    place = Place(Path("/run/some where/canbroker"))
    assert Place.at(str(place.broker)).directory == place.directory


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
        "udp://127.0.0.1:5555",
    ],
)
def test_an_address_that_is_none_is_named(address: str) -> None:
    said = f"broker address {address!r} is neither ipc://<absolute path>/broker nor tcp://"
    with pytest.raises(CanInitializationError, match=re.escape(said)):
        Place.at(address)


def test_plain_channel_names_are_file_names() -> None:
    place = Place(Path("/run/cb"))
    for name in ("can0", "body", "virtual.x", "A-b_C.9", "x" * 32, "console", "com10", "x.con"):
        addresses = place.channel(name)
        begin = f"ipc:///run/cb/{name}."
        assert str(addresses.stream) == f"{begin}rx"
        assert str(addresses.transmit) == f"{begin}tx"
        assert str(addresses.control) == f"{begin}ctl"


@pytest.mark.parametrize(
    "name",
    [
        *("", "x" * 33, "a b", "a/b", "../up", "ü", "can0\n", "%2F"),
        *("broker", "lock", "processes", "scheduler", "starting", "tasks"),
        *("con", "AUX", "nul.x", "prn", "Com1", "lpt9.a.b"),  # devices of Windows
    ],
)
def test_other_channel_names_are_hashed(name: str) -> None:
    place = Place(Path("/run/cb"))
    addresses = place.channel(name)
    assert re.fullmatch(r"ipc:///run/cb/[0-9a-f]{16}\.rx", str(addresses.stream))
    assert place.channel(name) == addresses
    assert place.channel(name + "x").stream != addresses.stream


def test_capital_letters_are_no_difference_between_files_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(Path("/run/cb"))
    monkeypatch.setattr("canbroker.transport.place.PORTABLE", False)
    assert not place.shares_files("CAN0", "can0")
    monkeypatch.setattr("canbroker.transport.place.PORTABLE", True)
    assert place.shares_files("CAN0", "can0")
    assert not place.shares_files("a/CAN0", "a/can0")  # digests differ
    assert not place.shares_files("can1", "can0")


def test_the_document_hashes_a_name_as_we_do() -> None:
    ((name, digest),) = re.findall(r"its UTF-8 bytes: `(.*?)` is `([0-9a-f]*)`", DOCUMENT)
    stream = Place(Path("/run/cb")).channel(name).stream
    assert str(stream) == f"ipc:///run/cb/{digest}.rx"


@natively
def test_a_directory_that_is_too_long_for_a_socket_is_named(short: Path) -> None:
    longest = f"/{'x' * 32}.ctl"
    fits = short / ("d" * (MAX_SOCKET_PATH - len(str(short)) - 1 - len(longest)))
    address = Place(fits).channel("x" * 32).control
    fits.mkdir()
    context = Context()
    try:
        context.replier(address).close()  # the system takes exactly this much
    finally:
        context.close()
    too_long = fits.with_name(fits.name + "d")
    with pytest.raises(CanInitializationError, match=f"{too_long} is too long.*{'x' * 32}"):
        Place(too_long).channel("x" * 32)
    assert str(Place(too_long).broker).endswith("/broker")
    with pytest.raises(CanInitializationError, match="'broker' in it would have more than 107"):
        _ = Place(short / ("ü" * 50)).broker  # two bytes each


def test_a_gateway_has_no_place_here() -> None:
    with pytest.raises(CanInitializationError, match="'tcp://bench1:5655' is the address of a gat"):
        Place.at("tcp://bench1:5655?key=none")


def test_a_broker_behind_a_gateway_has_its_sockets_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANBROKER_ADDRESS", "tcp://bench1:5655")
    gateway = remote_address(None)
    assert gateway == TcpAddress("bench1", 5655)
    assert remote_address("ipc:///run/canbroker/broker") is None
    place = RemotePlace(gateway)
    assert str(place.broker) == "tcp://bench1:5655#broker"
    assert str(place.channel_control("can0")) == "tcp://bench1:5655#can0.ctl"
    device = Place(Path("/run/canbroker")).channel("slcan./dev/ttyACM0")
    assert place.channel_control("slcan./dev/ttyACM0").socket == device.control.path.name
    assert str(place.reached(str(device.stream))) == f"tcp://bench1:5655#{device.stream.path.name}"


@pytest.mark.parametrize("text", ["tcp://*:5655", "tcp://bench1:0", "tcp://bench1:5655#can0.rx"])
def test_an_address_that_nobody_can_connect_to_is_named(text: str) -> None:
    with pytest.raises(CanInitializationError, match=re.escape(repr(text))):
        remote_address(text)
