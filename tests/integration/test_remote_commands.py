"""Commands, of the host of the broker and from afar: the same, or a sentence that says why not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.logs.candump import parse_log_line
from canbroker.model.frame import describe
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.place import ADDRESS_VARIABLE
from tests.support.brokers import private_runtime, status_of, wait_until
from tests.support.commands import run
from tests.support.remote import Lab, lab

DEADLINE_S = 30.0

CHANNELS = """
[channels.can0]
interface = "virtual"
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Its address is in the environment; commands are those of an admin."""
    with private_runtime() as runtime, lab(runtime, tmp_path, config=CHANNELS) as made:
        wait_until(lambda: made.gateway, "it listens")
        monkeypatch.setenv(ADDRESS_VARIABLE, made.address)
        yield made


def succeed(*arguments: str) -> str:
    ended = run(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def dumping(bench: Lab, *arguments: str) -> subprocess.Popen[str]:
    """A dump that is attached."""
    process = subprocess.Popen(
        EntryPoint.COMMAND.command("dump", "-L", *arguments, "can0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: _clients(bench), "the dump is attached")
    return process


def _clients(bench: Lab) -> int:
    """How many clients the channel has."""
    return sum(len(c.state.clients) for c in status_of(bench.runtime).channels if c.state)


def frames_of(text: str) -> list[str]:
    return [describe(parse_log_line(line).frame) for line in text.splitlines()]


def test_frames_go_out_and_in(bench: Lab, tmp_path: Path) -> None:
    log = tmp_path / "sent.log"
    with dumping(bench, "-n", "23") as dump:
        assert succeed("send", "can0", "123#DEADBEEF", "18FEF100#", "7FF##1" + "11" * 12) == ""
        succeed("gen", "can0", "-g", "0", "-n", "10", "-I", "i")
        log.write_text("".join(f"({n}.5) can0 {0x200 + n:03X}#{n:02X}\n" for n in range(10)))
        succeed("replay", str(log), "can0", "--speed", "100")
        printed, said = dump.communicate(timeout=DEADLINE_S)
    assert (dump.returncode, said) == (0, "")
    frames = frames_of(printed)
    assert frames[:3] == ["123#DEADBEEF", "18FEF100#", "7FF##1" + "11" * 12]
    assert [frame.split("#")[0] for frame in frames[3:13]] == [f"{n:03X}" for n in range(10)]
    assert frames[13:] == [f"{0x200 + n:03X}#{n:02X}" for n in range(10)]


def test_the_recent_past_is_written_here(bench: Lab, tmp_path: Path) -> None:
    """The file is the program's, on its own host."""
    path = tmp_path / "last.log"
    with Bus("can0"):
        succeed("send", "can0", "001#01", "002#02")
        assert run("record", "can0", "--last", "60", "-o", str(path)).returncode == 0
    assert frames_of(path.read_text()) == ["001#01", "002#02"]


@pytest.mark.parametrize("what", [("start", "night", "-c", "can0"), ("stop", "night")])
def test_recordings_belong_to_the_bench(bench: Lab, what: tuple[str, ...]) -> None:
    ended = run("record", *what)
    assert ended.returncode == 1
    host, port = bench.endpoint
    assert f"'tcp://{host}:{port}' is the address of a gateway" in ended.stderr
    assert "this needs a broker on this host" in ended.stderr
    assert succeed("record", "list") == "no recordings\n"


def test_what_is_there_is_shown(bench: Lab) -> None:
    with Bus("can0") as bus:
        bus.send_periodic(Message(arbitration_id=0x123), 0.05)
        everything = json.loads(succeed("status", "--json"))
        assert [channel["name"] for channel in everything["channels"]] == ["can0"]
        assert "123" in succeed("status", "--tasks")
        assert 'channel="can0"' in succeed("metrics")


def test_an_admin_stops_it(bench: Lab) -> None:
    assert succeed("stop").startswith("told the broker at tcp://")
    wait_until(lambda: not bench.runtime.lock_path.exists(), "it has stopped")
