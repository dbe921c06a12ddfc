from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from canbroker.cli import COMMANDS, CommandTable, cli
from canbroker.cli.common import parameter
from canbroker.cli.dump import Losses, wanted_channel
from canbroker.cli.lines import HumanLines, LogLines
from canbroker.cli.replay import loop_count, moment, target
from canbroker.cli.tables import bitrate, duration, program_name
from canbroker.delivery.order import REPLACED, SLOW, Loss, Place
from canbroker.delivery.tap import Dropped, Interrupted, Missed, Restarted, Resumed
from canbroker.logs.pacing import MAX_TOGETHER, Pace, due_together
from canbroker.model.filters import EVERYTHING
from canbroker.model.frame import ERROR, EXTENDED, Frame
from canbroker.system import clock
from canbroker.wire.status import ChannelStatus
from canbroker.wire.stream import StateEvent
from tests.support.brokers import wait_until

MS = clock.MILLISECOND


def command(name: str) -> click.Command:
    assert isinstance(cli, CommandTable)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def leaves(found: click.Command) -> list[click.Command]:
    if isinstance(found, click.Group):
        return [found, *found.commands.values()]
    return [found]


# -------------------------------------------------------------------------------- commands and help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    found = command(name)
    assert found.name == name
    assert found.get_short_help_str(limit=200) == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_everything_and_has_an_example(name: str) -> None:
    for found in leaves(command(name)):
        page = CliRunner().invoke(found, ["--help"])
        assert page.exit_code == 0
        assert "Example" in page.output
        options = [param for param in found.params if isinstance(param, click.Option)]
        assert [option.name for option in options if not option.help] == []


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = """
import sys
from canbroker.cli import main
from canbroker.wire.status import ChannelStatus
assert main() == 0
heavy = {"rich", "psutil", "serial", "canbroker.broker", "canbroker.cli.common"}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    page = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False
    )
    assert (page.returncode, page.stderr) == (0, "")
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in page.stdout
        assert summary in page.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["explode"])
    assert result.exit_code == 2
    assert "'explode'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send", "x"], "FRAME"),
        (["send", "x", "1#1"], "'1#1' is not a CAN frame"),
        (["send", "x", "123#112233445566778899"], "9 bytes do not fit a classic CAN frame"),
        (["dump"], "name at least one channel"),
        (["dump", ",1:1"], "',1:1' names no channel"),
        (["dump", "x,zz"], "filter 'zz' is not id:mask, id~mask or #errormask"),
        (["dump", "x", "-n", "0"], "'-n'"),
        (["dump", "x", "-t", "q"], "'q'"),
        (["dump", "x", "-b", "fast"], "'fast'"),
        (["dump", "x", "-p", "fd"], "'fd' is not KEY=VALUE"),
        (["dump", "x", "-p", "=1"], "'=1' is not KEY=VALUE"),
        (["dump", "x", "-p", "broker=ipc:///x"], "'broker' is not a parameter of an interface"),
        (["dump", "x", "-p", "self=1"], "'self' is not a parameter of an interface"),
        (["dump", "x", "-p", "history=1"], "'history' is not a parameter of an interface"),
        (["dump", "x", "-p", "ignore_config=1"], "'ignore_config' is not a parameter of an"),
        (["gen", "x", "-g", "nan"], "'nan' is not a finite number"),
        (["gen", "x", "-g", "inf"], "inf is not in the range"),
        (["gen", "x", "-g", "1e300"], "1e+300 is not in the range"),
        (["gen", "x", "-n", "-1"], "-1 is not in the range x>=1"),
        (["record", "x", "--last", "nan"], "'nan' is not a finite number"),
        (["record", "x", "--last", "-1"], "-1.0 is not in the range 0<=x<=86400"),
        (["replay", "log", "--speed", "nan"], "'nan' is not a finite number"),
        (["replay", "log", "-g", "nan"], "'nan' is not a finite number"),
        (["replay", "log", "-l", "9" * 5000], "is neither a number above 0 nor i (infinite)"),
        (["demo", "--speed", "nan"], "'nan' is not a finite number"),
        (["simulate", "slcan", "--rate", "nan"], "'nan' is not a finite number"),
        (["replay", "log", "-l", "0"], "'0' is neither a number above 0 nor i (infinite)"),
        (["replay", "log", "--speed", "-1"], "'--speed'"),
        (["replay", "log", "-g", "inf"], "'-g'"),
        (["demo", "--speed", "inf"], "'inf' is not a finite number"),
        (["gen", "x", "-L", "e"], "length must be r, i or a number of bytes, got 'e'"),
        (["gen", "x", "-I", "800"], "identifier 800 is above 7FF"),
        (["simulate", "slcan", "--fault", "explode"], "unknown command 'explode'"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("CANBROKER_AUTOSTART", "0")
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())
    assert f" {arguments[0]} " in result.stderr, "how the command is used"


@pytest.mark.parametrize("name", ["serve", "status", "stop", "dump", "send", "replay", "gen"])
def test_a_wrong_address_of_a_broker_is_named(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    log.write_text("(0.0) can0 123#\n")
    more = {"dump": ["x"], "send": ["x", "123#"], "gen": ["x"], "replay": [str(log)]}
    result = CliRunner().invoke(cli, [name, "--broker", "udp://1.2.3.4:5", *more.get(name, [])])
    assert result.exit_code == 1
    assert result.stderr == (
        f"canbroker: {name}: broker address 'udp://1.2.3.4:5' is neither "
        "ipc://<absolute path>/broker nor tcp://<host>:<port>\n"
    )


# -------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("fd=true", "fd", True),
        ("fd=false", "fd", False),
        ("tty_baudrate=115200", "tty_baudrate", 115_200),
        ("x=0.5", "x", 0.5),
        ("x=-3", "x", -3),
        ("btr=001C", "btr", "001C"),
        ("btr=0014", "btr", "0014"),
        ('btr="4914"', "btr", "4914"),
        ("url=socket://host:1?a=b", "url", "socket://host:1?a=b"),
        ("x=", "x", ""),
        ("x=2024-01-01", "x", "2024-01-01"),
        ("x=[1]", "x", "[1]"),
        ("x=1\ny=2", "x", "1\ny=2"),
    ],
)
def test_values_of_parameters(text: str, key: str, value: Any) -> None:
    found_key, found = parameter(text)
    assert (found_key, found, type(found)) == (key, value, type(value))


def test_a_channel_and_its_filters() -> None:
    assert wanted_channel("can0") == ("can0", EVERYTHING)
    channel, filters = wanted_channel("/dev/ttyACM0,123:7FF,#4")
    assert channel == "/dev/ttyACM0"
    assert filters.matches(0x123, 0)
    assert not filters.matches(0x124, 0)
    assert filters.matches(4, ERROR)
    assert not filters.matches(2, ERROR)


def test_an_empty_filter_list_passes_no_error_frames() -> None:
    # candump's rule: the mask of error frames is 0 unless one is given.
    _, filters = wanted_channel("can0,")
    assert filters.matches(0x123, 0)
    assert not filters.matches(4, ERROR)


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("12", 12), ("i", None), ("infinite", None)])
def test_numbers_of_loops(text: str, count: int | None) -> None:
    assert loop_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "²", "x"])
def test_what_is_no_number_of_loops(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is neither a number above 0"):
        loop_count(text)


# --------------------------------------------------------------------------------------- printing


def stamped(stamp: str | None, *at_ns: int) -> list[str]:
    lines = HumanLines(stamp, 4)
    return [lines.line("can0", Frame(ns, 0x123, 0, b"\x01")) for ns in at_ns]


def test_timestamps_as_candump_writes_them() -> None:
    first, second, third = (
        1_700_000_000_000_001_000,
        1_700_000_001_500_000_999,
        1_700_000_001 * 10**9,
    )
    rest = "  can0  123   [1]  01"
    assert stamped(None, first) == [rest]
    assert stamped("a", first, second) == [
        f" (1700000000.000001){rest}",
        f" (1700000001.500000){rest}",
    ]
    assert stamped("z", first, second, second) == [
        f" (000.000000){rest}",
        f" (001.499999){rest}",
        f" (001.499999){rest}",
    ]
    assert stamped("d", first, second, second + 2_000_000, third) == [
        f" (000.000000){rest}",
        f" (001.499999){rest}",
        f" (000.002000){rest}",
        f" (000.000000){rest}",  # earlier than the one before: it came from another adapter
    ]
    (line,) = stamped("A", first)
    assert line.startswith(" (2023-11-1")
    assert line.endswith(f".000001){rest}")


def test_identifiers_are_aligned_from_the_first_long_one_on() -> None:
    lines = HumanLines(None, 6)
    short, long = Frame(0, 0x1, 0, b""), Frame(0, 0x1, EXTENDED, b"")
    assert [lines.line("can0", frame) for frame in (short, long, short)] == [
        "    can0  001   [0] ",
        "    can0  00000001   [0] ",
        "    can0       001   [0] ",
    ]


def test_a_log_line_keeps_its_fields_whatever_the_channel_is_called() -> None:
    line = LogLines().line("spare bus", Frame(1_500_000_000, 0x123, 0, b"\x01"))
    assert line == "(0000000001.500000) spare_bus 123#01"


def test_a_dump_reports_what_it_did_not_print(capsys: pytest.CaptureFixture[str]) -> None:
    losses = Losses()
    for event in (
        Missed("can0", Loss(1, 5, 3, SLOW)),
        Missed("can0", Loss(1, 9, 4, SLOW)),
        Missed("can0", Loss(1, 20, None, REPLACED)),
        Restarted("can0", Place(2, 0)),
        Dropped("can1", 2),
        Interrupted("can1", "unplugged"),
        Resumed("can1"),
        Interrupted("can1", "unplugged"),
    ):
        losses.add(event)
    losses.report(["can0", "can1", "can2"])
    assert capsys.readouterr().err.splitlines() == [
        "canbroker: dump: can0: 7 frames lost: this program was too slow",
        "canbroker: dump: can0: the channel was restarted 1 times; frames may have been missed",
        "canbroker: dump: can1: 2 frames lost before they reached the broker",
        "canbroker: dump: can1: the adapter was away 2 times; "
        "frames on the bus were not received then",
    ]


def test_times_are_the_frames_to_the_nanosecond() -> None:
    """A message's float would round them to some 240 ns, and candump cuts them."""
    for at_ns in range(1_700_000_000_000_000_000, 1_700_000_000_000_004_000, 7):
        frame = Frame(at_ns, 0x123, EXTENDED, b"\1")
        microseconds = str(at_ns // 1_000)
        expected = f"({microseconds[:-6]}.{microseconds[-6:]})"
        assert LogLines().line("x", frame).startswith(f"{expected} ")
        assert HumanLines("a", 1).line("x", frame).startswith(f" {expected} ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("command_line", "name"),
    [
        ("/usr/bin/canbroker dump can0", "canbroker dump can0"),
        ("script.py", "script.py"),
        ("", ""),
        ("/opt/x 'cut o", "/opt/x 'cut o"),
    ],
)
def test_programs_lose_their_directories(command_line: str, name: str) -> None:
    assert program_name(command_line) == name


def channel_status(state: StateEvent | None, **parameters: Any) -> ChannelStatus:
    return ChannelStatus(
        name="x",
        interface="virtual",
        parameters=parameters,
        configured=True,
        phase="running",
        reason="",
        pid=1,
        restarts=0,
        stream="",
        transmit="",
        control="",
        state=state,
        clients=[],
    )


def test_bitrates() -> None:
    assert bitrate(channel_status(None)) == "-"
    assert bitrate(channel_status(None, bitrate=125_000)) == "125k"
    state = StateEvent(state="active", bitrate=500_000, data_bitrate=2_000_000)
    assert bitrate(channel_status(state, bitrate=1)) == "500k/2M"
    assert bitrate(channel_status(StateEvent(state="active", bitrate=33_333))) == "33.333k"


# ----------------------------------------------------------------------------------------- replay


def test_where_the_frames_of_a_log_go() -> None:
    assert target([]) is None
    assert target(["body"]) == "body"
    assert target(["a=b=can1", "body=can2"]) == {"can1": "a=b", "can2": "body"}
    assert target([], ["1=can0", "2=a=b"]) == {"1": "can0", "2": "a=b"}
    assert target(["body=can1"], ["1=can0"]) == {"can1": "body", "1": "can0"}


@pytest.mark.parametrize(
    ("arguments", "maps"),
    [
        (["a", "b"], []),
        (["a=can0", "b"], []),
        (["body="], []),
        (["=can0"], []),
        (["a"], ["1=can0"]),
        ([], ["can0"]),
        ([], ["1="]),
        ([], ["=can0"]),
    ],
)
def test_assignments_that_do_not_fit(arguments: list[str], maps: list[str]) -> None:
    with pytest.raises(click.UsageError, match="give one CHANNEL, or assignments"):
        target(arguments, maps)


def test_moments_are_seconds_or_times() -> None:
    assert moment(None, None, None) is None
    assert moment(None, None, "60.5") == 60.5
    assert moment(None, None, "2026-11-30T12:00:00Z") == datetime(2026, 11, 30, 12, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="neither seconds nor a time"):
        moment(None, None, "noon")


# ----------------------------------------------------------------------------------------- pacing


def test_nothing_comes_before_its_time_and_nothing_is_left_out() -> None:
    items = [(number // 3 * MS, number) for number in range(30)]
    start = clock.monotonic_ns()
    got = []
    for due in due_together(items):
        assert due
        elapsed = clock.monotonic_ns() - start
        assert all(items[number][0] <= elapsed for number in due)
        got += due
    assert got == list(range(30))


def test_what_is_due_together_comes_together() -> None:
    assert list(due_together((0, number) for number in range(3))) == [[0, 1, 2]]
    assert list(due_together([])) == []


def test_parts_have_one_clock() -> None:
    pace = Pace()
    start = clock.monotonic_ns()
    assert list(pace.due_together([(0, "a")])) == [["a"]]
    assert list(pace.due_together([(20 * MS, "b"), (20 * MS, "c")])) == [["b", "c"]]
    assert clock.monotonic_ns() - start >= 20 * MS
    with pace.standing_still():
        begun = clock.monotonic_ns()
        wait_until(lambda: clock.monotonic_ns() - begun >= 30 * MS, "time passes")
    assert list(pace.due_together([(40 * MS, "d")])) == [["d"]]
    assert clock.monotonic_ns() - start >= 70 * MS, "what passed meanwhile does not count"


def test_as_fast_as_possible_comes_in_bounded_batches() -> None:
    endless = due_together((0, number) for number in itertools.count())
    batches = list(itertools.islice(endless, 3))
    assert [len(batch) for batch in batches] == [MAX_TOGETHER] * 3
    assert list(itertools.chain.from_iterable(batches)) == list(range(3 * MAX_TOGETHER))
