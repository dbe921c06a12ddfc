"""The ``[nats]`` table: where the bridge publishes, and what may be sent by requests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from canbroker import CanInitializationError
from canbroker.actors.nats.options import NatsOptions
from canbroker.actors.sections import check, nats_options
from canbroker.configuration import broker_file

pytest.importorskip("nats", reason="needs the extra nats")

CHANNELS = '[channels.can0]\ninterface = "virtual"\n[channels."a.b"]\ninterface = "virtual"\n'


def options(tmp_path: Path, lines: str) -> NatsOptions | None:
    path = tmp_path / "bench.toml"
    path.write_text(f"{CHANNELS}[nats]\n{lines}\n")
    config = broker_file.load(path)
    return nats_options(config, check(config))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('url = "nats://h:1"', r"nats: site is missing"),
        ('site = "lab"', r"nats: url is missing"),
        ('site = "lab"\nurl = "http://h"', r"line 7, nats\.url: .*must be nats://"),
        ('site = "lab"\nurl = []', r"nats\.url: .*no server"),
        ('url = "nats://h"\nsite = "a\\nb"', r"nats\.site: .*printable"),
        (
            'url = "nats://h"\nsite = "a"\nchannels = ["can7"]',
            r"no channel 'can7'; .*'can0', 'a\.b'",
        ),
        ('url = "nats://h"\nsite = "a"\nchannels = ["can0", "can0"]', r"nats\.channels: .*twice"),
        ('url = "nats://h"\nsite = "a"\nwindow = 0', r"nats\.window: .*must be 1 to 1024"),
        ('url = "nats://h"\nsite = "a"\nsignal_rate = 0.0', r"nats\.signal_rate"),
        ('url = "nats://h"\nsite = "a"\ntransmit = ["800"]', r"nats\.transmit: .*beyond 7FF"),
        (
            'url = "nats://h"\nsite = "a"\ncredentials = "no"',
            r"line 8, nats\.credentials: .*No such",
        ),
        ('url = "nats://h"\nsite = "a"\ntls = {ca = "no"}', r"nats\.tls\.ca: .*No such"),
        ('url = "nats://h"\nsite = "a"\ntls = {cert = "no"}', r"cert and key"),
        ('url = "nats://h"\nsite = "a"\ntoken = "x"', r"nats\.token: unknown key"),
    ],
)
def test_faults_name_file_and_key(tmp_path: Path, lines: str, fault: str) -> None:
    with pytest.raises(CanInitializationError, match=f"bench.toml, .*{fault}"):
        options(tmp_path, lines)


def test_a_password_in_a_wrong_url_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(CanInitializationError) as caught:
        options(tmp_path, 'site = "a"\nurl = "nats://user:geheim@h:x"')
    assert "geheim" not in str(caught.value)


def test_what_is_left_out_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("user:password")
    found = options(tmp_path, 'url = "nats://h"\nsite = "a"\ncredentials = "secret"')
    assert found is not None
    assert (found.channels, found.bench) == (["can0", "a.b"], socket.gethostname())
    assert found.credentials == str(tmp_path / "secret")


def test_without_a_url_there_is_no_bridge(tmp_path: Path) -> None:
    assert options(tmp_path, "window = 32") is None
    assert nats_options(None, {}) is None


def test_what_may_be_sent() -> None:
    found = NatsOptions(url="nats://h", site="a", transmit=["100-1FF", "x18DA0000"])
    assert found.may_transmit(0x100, extended=False)
    assert found.may_transmit(0x18DA0000, extended=True)
    assert not found.may_transmit(0x200, extended=False)
    assert not found.may_transmit(0x100, extended=True)
    assert not NatsOptions(url="nats://h", site="a").may_transmit(0x100, extended=False)
