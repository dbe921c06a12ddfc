"""The configuration file: what it yields, and errors that say where they are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

from canbroker.backends import BACKENDS, parse_options
from canbroker.backends.configured import check
from canbroker.backends.virtual import VirtualOptions
from canbroker.configuration import broker_file
from canbroker.configuration.broker_file import BrokerConfig, ChannelConfig, Config
from canbroker.errors import CanInitializationError
from canbroker.system import toml_file

EXAMPLES = sorted((Path(__file__).parents[3] / "configs").glob("*.toml"))


def parse(text: str) -> Config:
    return broker_file.parse(dedent(text), "x.toml")


def error_of(text: str) -> str:
    """What is said about a file with something wrong in it."""
    with pytest.raises(CanInitializationError) as caught:
        check(parse(text))
    return str(caught.value)


# --------------------------------------------------------------------------------------- contents


def test_a_file_yields_broker_and_channels_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        dedent("""
        [broker]
        address = "ipc:///tmp/x"
        log_level = "debug"
        [channels.z]
        interface = "slcan"
        channel = "/dev/ttyACM0"
        bitrate = 500000
        [channels."body bus"]
        interface = "virtual"
        pool = "bench"
        database = ["car.dbc", "../body.kcd"]
        [channels.one]
        interface = "virtual"
        database = "car.dbc"
        """)
    )
    loaded = broker_file.load(path)
    assert loaded.source.path == str(path)
    assert loaded.broker == BrokerConfig("ipc:///tmp/x", "debug")
    assert list(loaded.channels.values()) == [
        ChannelConfig("z", "slcan", {"channel": "/dev/ttyACM0", "bitrate": 500_000}),
        ChannelConfig(
            "body bus", "virtual", {}, pool="bench", databases=("car.dbc", "../body.kcd")
        ),
        ChannelConfig("one", "virtual", {}, databases=("car.dbc",)),
    ]


def test_an_empty_file_is_a_broker_without_channels() -> None:
    empty = parse("")
    assert empty.broker == BrokerConfig(address=None, log_level="info")
    assert check(empty) == {}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_right(path: Path) -> None:
    loaded = broker_file.load(path)
    assert check(loaded).keys() == loaded.channels.keys()
    assert loaded.channels


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {*BACKENDS, "pcan", "bench"}


@pytest.mark.parametrize("interface", BACKENDS)
def test_the_example_of_an_interface_has_every_parameter(interface: str) -> None:
    text = (EXAMPLES[0].parent / f"{interface}.toml").read_text()
    options = parse_options(interface, {"channel": "x"})
    shown = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    assert shown - {"interface"} == set(options.__struct_fields__)
    for proposed in re.findall(r"(?:^# \w+ = .*\n)+", text, re.MULTILINE):
        settings = tomllib.loads(proposed.replace("# ", "", 1).replace("\n# ", "\n"))
        parse_options(interface, {"channel": "x"} | settings)


def test_the_bench_has_every_setting_of_the_broker() -> None:
    text = (EXAMPLES[0].parent / "bench.toml").read_text().split("[channels")[0]
    shown = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    assert shown == set(BrokerConfig.__struct_fields__)


def test_check_yields_typed_options() -> None:
    checked = check(
        parse("""
        [channels.a]
        interface = "virtual"
        channel = "other"
        bitrate = 500000
        [channels.b]
        interface = "virtual"
        """)
    )
    assert checked == {
        "a": ("virtual", VirtualOptions(channel="other", bitrate=500_000)),
        "b": ("virtual", VirtualOptions(channel="b")),
    }


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("\nchannels = 3", "x.toml, line 2, channels: ", "must be a table, got 3"),
        ("[broker]\n\nadress = 'x'", "x.toml, line 3, broker.adress: ", "unknown key"),
        ("[broker]\naddress = 3", "x.toml, line 2, broker.address: ", "must be a text, got 3"),
        ("[broker]\nlog_level = 'loud'", "x.toml, line 2, broker.log_level: ", "'loud'"),
        ("broker.log_level = 'loud'", "x.toml, line 1, broker.log_level: ", "'loud'"),
        ("[broker]\nerror_rate = -1", "x.toml, line 2, broker.error_rate: ", "got -1"),
        ("channels.a = 1", "x.toml, line 1, channels.a: ", "must be a table"),
        ("[channels.a]\nchannel = 'x'", "x.toml, line 1, channels.a: ", "no interface"),
        ("[channels.a]\ninterface = 1", "x.toml, line 2, channels.a.interface: ", "a string"),
        (
            "[channels.a]\ninterface = 'virtual'\npool = ''",
            "x.toml, line 3, channels.a.pool: ",
            "1 to 64 printable characters, got ''",
        ),
        (
            "[channels.a]\ninterface = 'virtual'\npool = 1",
            "x.toml, line 3, channels.a.pool: ",
            "printable characters, got 1",
        ),
        *(
            (
                f"[channels.a]\ninterface = 'virtual'\ndatabase = {wrong}",
                "x.toml, line 3, channels.a.database: ",
                "must be a path, or a list of 16 paths at most",
            )
            for wrong in ("1", "''", "[1]", "['']", f"{['car.dbc'] * 17}", "{a = 'car.dbc'}")
        ),
        (
            "[channels.a]\ninterface = 'vector'",  # python-can's, which needs a channel
            "x.toml, line 1, channels.a: ",
            "needs a channel",
        ),
        (
            "[channels.a]\ninterface = 'virtual'\nbitrat = 1",
            "x.toml, line 3, channels.a.bitrat: ",
            "no parameter 'bitrat'",
        ),
        (
            "[channels.a]\ninterface = 'virtual'\nfd = true\nbitrate = '500k'",
            "x.toml, line 4, channels.a.bitrate: ",
            "must be a whole number, got '500k'",
        ),
        (
            "[channels.a]\ninterface = 'virtual'\nbitrate = 5",
            "x.toml, line 3, channels.a.bitrate: ",
            "bitrate must be 1000",
        ),
        (
            "[channels.a]\ninterface = 'slcan'",
            "x.toml, line 1, channels.a: ",
            "channel",
        ),
    ],
)
def test_an_error_names_file_line_and_key(text: str, where: str, words: str) -> None:
    message = error_of(text)
    assert message.startswith(where)
    assert words in message
    assert "$" not in message


@pytest.mark.parametrize("name", ["", "x" * 65, "a\\tb"])
def test_a_bad_channel_name_is_refused(name: str) -> None:
    assert "1 to 64 printable characters" in error_of(f'[channels."{name}"]\ninterface = "virtual"')


@pytest.mark.parametrize("name", ["x", "x" * 64, "Körper 1/2"])
def test_a_name_may_have_any_printable_characters(name: str) -> None:
    assert list(check(parse(f'[channels."{name}"]\ninterface = "virtual"'))) == [name]


def test_two_channels_with_one_adapter_are_refused() -> None:
    message = error_of("""\
        [channels.a]
        interface = "virtual"
        channel = "same"

        [channels.b]
        interface = "virtual"
        channel = "same"
        """)
    assert message.startswith("x.toml, line 7, channels.b.channel: ")
    assert "'same' is channel 'a' already" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nb = \nc = 3", "line 2"),
        ("[channels.a]\n[channels.a]", "line 2"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "1" * 5_000, "not valid TOML"),
    ],
)
def test_what_is_no_toml_is_refused(text: str, words: str) -> None:
    message = error_of(text)
    assert message.startswith("x.toml: ")
    assert words in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(CanInitializationError, match="cannot read the configuration") as caught:
            broker_file.load(path)
        assert str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\n# \xff\n")
    with pytest.raises(CanInitializationError, match=r"x\.toml, line 2: not UTF-8"):
        broker_file.load(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_file_of_another_systems_editor(tmp_path: Path, mark: bytes, end: bytes) -> None:
    path = tmp_path / "x.toml"
    lines = [b"[channels.a]", b'interface = "virtual"', b"# K\xc3\xb6rper"]
    path.write_bytes(mark + end.join(lines) + end)
    assert broker_file.load(path).channels == {"a": ChannelConfig("a", "virtual", {})}
    for wrong, said in ((b"\xff", "not UTF-8"), (b"bitrat = 1", "channels.a.bitrat: ")):
        path.write_bytes(mark + end.join([*lines, wrong]) + end)
        with pytest.raises(CanInitializationError, match=rf"x\.toml, line 4.*{said}"):
            check(broker_file.load(path))
    path.write_bytes(mark + b"[" + end)
    with pytest.raises(CanInitializationError, match=r"x\.toml: not valid TOML: .*line 1"):
        broker_file.load(path)


def test_the_size_of_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"#" * toml_file.MAX_FILE_BYTES)
    assert broker_file.load(path).channels == {}
    path.write_bytes(b"#" * (toml_file.MAX_FILE_BYTES + 1))
    with pytest.raises(CanInitializationError, match="1048576 bytes at most"):
        broker_file.load(path)


# ------------------------------------------------------------------------------------------ lines


def test_windows_line_ends_count_once() -> None:
    text = "[channels.a]\r\ninterface = 'virtual'\r\nfd = 1\r\n"
    assert error_of(text).startswith("x.toml, line 3, channels.a.fd: ")
