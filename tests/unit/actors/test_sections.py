"""The parts of a configuration file that are about kinds of actors."""

from __future__ import annotations

from textwrap import dedent

import pytest

from canbroker.actors.gateway.options import GatewayOptions
from canbroker.actors.kinds import KINDS
from canbroker.actors.recorder.options import RecordOptions
from canbroker.actors.sections import check
from canbroker.configuration import broker_file
from canbroker.errors import CanInitializationError


def parse(text: str) -> broker_file.Config:
    return broker_file.parse(dedent(text), "x.toml")


def test_a_section_has_a_table_for_each_actor() -> None:
    found = check(
        parse("""
        [channels.can0]
        interface = "virtual"
        [record.drive]
        channels = ["can0"]
        directory = "d"
        rotate_mb = 100
        [record."the other"]
        channels = ["can0"]
        directory = "d"
        """)
    )
    drive = RecordOptions(channels=["can0"], directory="d", rotate_mb=100)
    other = RecordOptions(channels=["can0"], directory="d")
    assert found == {"recorder": {"drive": drive, "the other": other}}


def test_a_section_without_names_is_of_one_actor() -> None:
    found = check(parse("[remote]\nlisten = 'tcp://*:5655'"))
    assert found == {"gateway": {"gateway": GatewayOptions("tcp://*:5655")}}


def test_a_file_without_sections_has_no_such_actors() -> None:
    assert check(parse("")) == {}


def test_each_section_is_of_one_kind() -> None:
    names = [kind.section.name for kind in KINDS.values() if kind.section]
    assert len(names) == len(set(names))
    assert not set(names) & set(broker_file.OWN_SECTIONS)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        (
            "[brokers]",
            "x.toml, line 1, brokers: ",
            "unknown key; known are broker, channels, remote, record",
        ),
        ("record = 1", "x.toml, line 1, record: ", "must be a table"),
        ("\n[record]\na = 1", "x.toml, line 3, record.a: ", "must be a table"),
        ("[record.a]\nchanels = []", "x.toml, line 2, record.a.chanels: ", "unknown key"),
        ("[record.a]\nchannels = ['x']", "x.toml, line 1, record.a: ", "`directory`"),
        (
            "[record.a]\nchannels = ['x']\ndirectory = 'd'\nrotate_mb = -1",
            "x.toml, line 4, record.a.rotate_mb: ",
            "rotate_mb must be above 0",
        ),
        (
            "[record.a]\nchannels = ['x', 'x']\ndirectory = 'd'",
            "x.toml, line 2, record.a.channels: ",
            "each another one",
        ),
        (
            "[record.a]\nchannels = ['x']\ndirectory = 'd'\nfilters = ['12']",
            "x.toml, line 4, record.a.filters: ",
            "filter '12'",
        ),
        ("[remote]\nlisen = 'x'", "x.toml, line 2, remote.lisen: ", "unknown key"),
        ("[remote]\nlisten = 3", "x.toml, line 2, remote.listen: ", "must be a text, got 3"),
        ("[remote]\nlisten = 'x'", "x.toml, line 2, remote.listen: ", "tcp://<host>:<port>"),
        ("[remote]\nlisten = 'tcp://*'", "x.toml, line 2, remote.listen: ", "has no port"),
        (
            "[remote]\nlisten = 'tcp://*:5655?key=none'",
            "x.toml, line 2, remote.listen: ",
            "only connections within a host may be unencrypted",
        ),
        ("[record.'']\nchannels = ['x']", "x.toml, line 1, record.: ", "1 to 64"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, where: str, words: str) -> None:
    with pytest.raises(CanInitializationError) as caught:
        check(parse(text))
    assert str(caught.value).startswith(where)
    assert words in str(caught.value)
