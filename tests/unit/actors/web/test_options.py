"""The ``[web]`` table: where the page listens, and what may be sent from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from canbroker import CanInitializationError
from canbroker.actors.sections import check, web_options
from canbroker.actors.web.options import WebAddress, WebOptions
from canbroker.configuration import broker_file


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:8080", "::1", 8080, True),
        ("*:8443", "*", 8443, False),
        ("Bench1.lab:80", "bench1.lab", 80, False),
        ("0.0.0.0:80", "0.0.0.0", 80, False),  # noqa: S104 - nothing is bound
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = WebAddress.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["", "8080", "127.0.0.1", ":8080", "a:99999", "a b:80", "::1:80"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="listen: must be HOST:PORT"):
        WebOptions(listen=text)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('listen = "*:8080"', "line 2, web.listen: .*encrypted"),
        ('listen = "192.168.1.5:8080"', "line 2, web.listen: .*encrypted"),
        ('listen = "127.0.0.1:1"\ntls_cert = "x.pem"', "line 3, web.tls_cert: .*together"),
        (
            'listen = "*:1"\ntls_cert = "no.pem"\ntls_key = "no.key"',
            "line 3, web.tls_cert: cannot read .*no.pem: No such file",
        ),
        ('listen = "127.0.0.1:1"\ntransmit = ["800"]', "line 3, web.transmit: .*beyond 7FF"),
        ('listen = "127.0.0.1:1"\nnames = ["a b"]', "line 3, web.names: .*not the name of a host"),
        ('listen = "127.0.0.1:1"\ntoken = "x"', "line 3, web.token: unknown key"),
        ("listen = 8080", "line 2, web.listen: .*text"),
    ],
)
def test_faults_name_file_line_and_key(tmp_path: Path, lines: str, fault: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(f"[web]\n{lines}\n")
    config = broker_file.load(path)
    with pytest.raises(CanInitializationError, match=f"bench.toml, {fault}"):
        web_options(config, check(config))


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    for name in ("a.pem", "a.key"):
        (tmp_path / name).write_text("nothing")
    path = tmp_path / "bench.toml"
    path.write_text('[web]\nlisten = "*:1"\ntls_cert = "a.pem"\ntls_key = "a.key"\n')
    config = broker_file.load(path)
    with pytest.raises(CanInitializationError, match=r"line 3, web.tls_cert: .*certificate"):
        web_options(config, check(config))


def test_without_an_address_there_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('[web]\ntransmit = ["100"]\n')
    config = broker_file.load(path)
    assert web_options(config, check(config)) is None
    assert web_options(None, {}) is None


def test_what_may_be_sent() -> None:
    options = WebOptions(transmit=["100-1FF", "x18DA0000-18DAFFFF"])
    assert options.may_transmit(0x100, extended=False)
    assert options.may_transmit(0x18DA1234, extended=True)
    assert not options.may_transmit(0x100, extended=True)
    assert not options.may_transmit(0x200, extended=False)
    assert not WebOptions().may_transmit(0x100, extended=False)


def test_options_reach_the_actor_as_they_are() -> None:
    options = WebOptions(listen="127.0.0.1:1", transmit=["100"], names=["a"])
    assert msgspec.json.decode(msgspec.json.encode(options), type=WebOptions) == options
