"""What the command line prints, and where: odd names, odd encodings, outputs that take nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import pytest

from canbroker.transport.runtime import Runtime
from tests.integration.test_cli import COMMAND, DEADLINE_S, Running, dumping, fail, serving
from tests.support.brokers import wait_until
from tests.support.processes import Program

pytestmark = pytest.mark.long

FULL_DISK: Final = Path("/dev/full")

#: Sets a terminal's title, clears it, and breaks the line.
EVIL: Final = "evil\x1b]0;owned\x07\x1b[2J\nname [red]\u202e"

CHANNEL: Final = "straße"

_PERIODIC: Final = """
    sys.argv = [arguments["name"]]
    with Bus(arguments["channel"], "virtual") as bus:
        task = bus.send_periodic(Message(arbitration_id=0x123), 0.01)
        say("sends")
        hear()
    """


def run(*arguments: str, stdout: int | IO[Any] = subprocess.PIPE, **environment: str) -> Any:
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "200"} | environment,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture
def sender(runtime: Runtime, tmp_path: Path) -> Iterator[Program]:
    with serving(tmp_path), Program(_PERIODIC, name=EVIL, channel=CHANNEL) as program:
        assert program.said() == "sends"
        yield program
        program.tell("end")
        assert program.end() == 0


def test_names_of_others_do_nothing_to_a_terminal(sender: Program) -> None:
    for arguments in (["status"], ["status", "--tasks"], ["status", "--json"]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\x1b" not in done.stdout
        assert "\u202e".encode() not in done.stdout
    [line] = [line for line in run("status").stdout.splitlines() if b"evil" in line]
    assert rb"evil\x1b]0;owned\x07\x1b[2J" in line
    assert b"[red]" in line


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
def test_names_that_an_encoding_lacks(sender: Program, encoding: str) -> None:
    named = ("-i", "virtual", CHANNEL)
    for arguments in (
        ["status", "--tasks"],
        ["dump", "-n", "1", *named],
        ["dump", "-L", "-n", "1", *named],
        ["record", f"virtual.{CHANNEL}"],
        ["config", "show"],
    ):
        done = run(*arguments, PYTHONIOENCODING=encoding, CAN_INTERFACE="\u65e5", CAN_CHANNEL="é")
        assert (done.returncode, done.stderr) == (0, b""), arguments
        assert b"stra" in done.stdout or arguments[0] == "config"
    refused = run("send", *named, "123#", "-p", "\u65e5=1", PYTHONIOENCODING=encoding)
    assert refused.returncode == 1
    assert refused.stderr.count(b"\n") == 1


def test_bytes_that_are_no_text(runtime: Runtime, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    with serving(tmp_path):
        for arguments in (
            ["record", odd],
            ["dump", odd],
            ["send", "-i", "virtual", odd, "123#"],
            ["replay", odd],
            ["serve", "-c", odd],
        ):
            done = run(*arguments)
            assert done.returncode == 1, arguments
            assert done.stderr.startswith(f"canbroker: {arguments[0]}: ".encode())
            assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_in_one_line(sender: Program) -> None:
    named = ("-i", "virtual", CHANNEL)
    with FULL_DISK.open("w") as full:
        for arguments in (
            ["--help"],
            ["status"],
            ["status", "--json"],
            ["status", "--tasks"],
            ["dump", *named],
            ["dump", "-L", *named],
            ["record", f"virtual.{CHANNEL}"],
            ["simulate", "slcan"],
        ):
            done = run(*arguments, stdout=full)
            assert (done.returncode, done.stderr) == (
                1,
                b"canbroker: cannot write to standard output: No space left on device\n",
            ), arguments


def test_a_closed_reader_is_not_an_error(sender: Program) -> None:
    named = ("-i", "virtual", CHANNEL)
    for arguments in (["status"], ["status", "--json"], ["dump", *named], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = run(*arguments, stdout=writing)
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (1, b""), arguments


# ------------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[broker]\naddress = "udp://x"',
            "line 2, broker.address: broker address 'udp://x'",
        ),
        (f'\n[broker]\naddress = "ipc:///tmp/{"x" * 120}/broker"', "line 3, broker.address: "),
        ('[broker]\nring_s = "a"', "line 2, broker.ring_s: ring_s must be a number, got 'a'"),
        ("[broker]\nring_s = nan", "line 2, broker.ring_s: ring_s must be 0 to 86400, got nan"),
        ('[channels.a]\ninterface = "Virtual"', "line 2, channels.a.interface: unknown interface"),
        (
            '[channels.a]\ninterface = "virtual"\nbitrate = inf',
            "line 3, channels.a.bitrate: interface 'virtual': bitrate must be a whole number",
        ),
    ],
)
def test_a_wrong_configuration_names_file_line_and_value(
    runtime: Runtime, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    assert f"{path}, {said}" in fail("serve", "-c", str(path))


def test_a_value_that_the_environment_says_is_named(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path):
        monkeypatch.setenv("CAN_CONFIG", '{"history": "long"}')
        assert "history must be 0 to 86400 seconds, got 'long'" in fail(
            "send", "-i", "virtual", "x", "123#"
        )
        monkeypatch.setenv("CAN_CONFIG", '{"self": 1}')
        assert "no parameter 'self'" in fail("send", "-i", "virtual", "x", "123#")


def test_a_pause_of_centuries_can_be_interrupted(runtime: Runtime, tmp_path: Path) -> None:
    pause = ("-g", "1e9", "-n", "9" * 30, "-I", "3")
    with (
        serving(tmp_path),
        dumping(runtime, tmp_path, "-i", "virtual", "x", "-L") as dump,
        Running(tmp_path, "gen", "-i", "virtual", "x", *pause) as gen,
    ):
        wait_until(lambda: "003#" in dump.out, "the first frame is sent")
        assert gen.process.poll() is None
        assert gen.end(signal.SIGINT) == 130
        assert "Traceback" not in gen.err
