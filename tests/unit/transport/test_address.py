"""Addresses, from text and back to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from canbroker.errors import CanInitializationError
from canbroker.transport.address import MAX_SOCKET_PATH, IpcAddress, parse_address


def test_an_address_is_read_from_its_text() -> None:
    address = IpcAddress(Path("/run/some where/can0.rx"))
    assert str(address) == "ipc:///run/some where/can0.rx"
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "can0.rx", "/run/can0.rx", "ipc://", "ipc://run/x", "ipc:///a\nb", "tcp://h:1"]
)
def test_text_that_is_not_an_address_is_named(text: str) -> None:
    with pytest.raises(CanInitializationError, match=re.escape(repr(text))):
        parse_address(text)


def test_a_path_that_is_too_long_for_a_socket_is_named() -> None:
    longest = Path("/" + "d" * (MAX_SOCKET_PATH - len("/") - len("/x"))) / "x"
    assert parse_address(f"ipc://{longest}").path == longest
    for path in (longest.with_name("xy"), longest.with_name("ü")):
        with pytest.raises(CanInitializationError, match=f"{path.parent} is too long: .*107 bytes"):
            IpcAddress(path)
