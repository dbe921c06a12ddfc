"""Addresses, from text and back to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.model.key import SecretKey
from canbroker.transport import curve
from canbroker.transport.address import (
    MAX_SOCKET_PATH,
    IpcAddress,
    TcpAddress,
    parse_address,
    parse_ipc,
)
from tests.support.systems import natively


def test_an_address_is_read_from_its_text() -> None:
    address = IpcAddress(Path("/run/some where/can0.rx"))
    assert str(address) == "ipc:///run/some where/can0.rx"
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "can0.rx", "/run/can0.rx", "ipc://", "ipc://run/x", "ipc:///a\nb", "udp://h:1"]
)
def test_text_that_is_not_an_address_is_named(text: str) -> None:
    with pytest.raises(CanInitializationError, match=re.escape(repr(text))):
        parse_address(text)


@natively
def test_a_path_that_is_too_long_for_a_socket_is_named() -> None:
    longest = Path("/" + "d" * (MAX_SOCKET_PATH - len("/") - len("/x"))) / "x"
    assert parse_ipc(f"ipc://{longest}").path == longest
    for path in (longest.with_name("xy"), longest.with_name("ü")):
        with pytest.raises(CanInitializationError, match=f"{path.parent} is too long: .*107 bytes"):
            IpcAddress(path)


KEY = curve.public_of(SecretKey(bytes(range(32))))  # the same in each process: it names tests


@pytest.mark.parametrize(
    "address",
    [
        TcpAddress("bench1", 5655),
        TcpAddress("bench_1.lab", 1, KEY, "can0.rx"),
        TcpAddress("::1", 65_535, socket="broker"),
        TcpAddress("fe80::1%eth0", 5655),
        TcpAddress("127.0.0.1", 5655, encrypted=False),
    ],
    ids=str,
)
def test_the_address_of_a_gateway_is_read_from_its_text(address: TcpAddress) -> None:
    assert parse_address(str(address)) == address


def test_an_endpoint_has_neither_key_nor_socket() -> None:
    assert TcpAddress("::1", 5655, KEY, "can0.rx").endpoint == "tcp://[::1]:5655"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tcp://bench1", "has no port; write tcp://<host>:<port>"),
        ("tcp://[::1]", "has no port"),
        ("tcp://::1:5655", r"an IPv6 address is written in brackets: tcp://\[::1:5655\]:<port>"),
        ("tcp://[bench1]:5655", "'bench1' in brackets is not an IPv6 address"),
        ("tcp://bench1:", "'' is not a port, a number from 1 to 65,535"),
        ("tcp://bench1:65536", "'65536' is not a port"),
        ("tcp://bench1:+1", r"'\+1' is not a port"),
        ("tcp://bench1:00000099999", "'00000099999' is not a port"),
        ("tcp://bench1:" + 5_000 * "9", "9' is not a port"),
        ("tcp://[fe80::1%]:5]:5655", "']:5' is not the name of a network interface"),
        ("tcp://:5655", "'' is not the name or number of a host"),
        ("tcp://a b:5655", "'a b' is not the name"),
        ("tcp://bench1:5655#../x", "after # comes the name of a socket"),
        ("tcp://bench1:5655?kay=x", "after [?] comes key=cb1"),
        ("tcp://bench1:5655?key=none", "only connections within a host may be unencrypted"),
        ("tcp://bench1:5655?key=cb1:abc", "43 characters, got 3"),
    ],
)
def test_what_is_wrong_with_the_address_of_a_gateway_is_named(text: str, fault: str) -> None:
    with pytest.raises(CanInitializationError, match=fault) as caught:
        parse_address(text)
    assert text.partition("?")[0] in str(caught.value)


def test_a_secret_key_in_an_address_is_not_repeated() -> None:
    secret = curve.new_pair()[1].reveal_text()
    with pytest.raises(CanInitializationError) as caught:
        parse_address(f"tcp://bench1:5655?key={secret}")
    assert secret not in str(caught.value)
    assert secret.removeprefix("cb1-secret:") not in str(caught.value)
