"""The command line as users run it: processes, exit codes, what they print."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

import pytest

import canbroker
from canbroker.logs.candump import LogEntry, parse_log_line
from canbroker.model.frame import describe
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import processes_of, status_of, wait_until
from tests.support.commands import run
from tests.support.simulated import Simulated

DEADLINE_S = 30.0
COMMAND = EntryPoint.COMMAND.command()

BENCH = """
[channels.body]
interface = "virtual"
bitrate = 500000

[channels.rest]
interface = "virtual"
"""


def succeed(*arguments: str) -> str:
    """What a command prints that must end well and have nothing to complain of."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def fail(*arguments: str, code: int = 1) -> str:
    """What a command says that must end with ``code`` and print nothing else."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.startswith(f"canbroker: {arguments[0]}: ")
        assert done.stderr.count("\n") == 1
    return done.stderr


class Running:
    """A command that goes on until it is told to end, or has enough. Writes to files."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        number = len(list(directory.glob("*.out")))
        self._out = directory / f"{number}.out"
        self._err = directory / f"{number}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def end(self, number: signal.Signals | None = None) -> int:
        """The exit code, after a signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def dumping(
    runtime: Runtime, directory: Path, *arguments: str, channels: int = 1
) -> Iterator[Running]:
    """A dump whose filters are active in every one of its ``channels``."""
    with Running(directory, "dump", *arguments) as dump:
        wait_until(
            lambda: dump.process.poll() is not None or subscribed(runtime, dump) == channels,
            "the dump is attached",
        )
        assert dump.process.poll() is None, dump.err
        yield dump


def subscribed(runtime: Runtime, command: Running) -> int:
    """To how many channels a command is, as their actors see it."""
    if not runtime.lock_path.exists():
        return 0
    return sum(
        client.pid == command.process.pid
        and channel.state is not None
        and any(client.client_id == info.client_id for info in channel.state.clients)
        for channel in status_of(runtime).channels
        for client in channel.clients
    )


@contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[Running]:
    """A broker in the foreground, which must end well and without a traceback."""
    with Running(directory, "serve", *arguments) as server:
        wait_until(
            lambda: "ready at ipc://" in server.err or server.process.poll() is not None,
            "the broker is ready",
        )
        assert server.process.poll() is None, server.err
        yield server
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.err


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    return path


@pytest.fixture
def server(runtime: Runtime, tmp_path: Path, bench: Path) -> Iterator[Running]:
    with serving(tmp_path, "-c", str(bench)) as running:
        yield running


def logged(text: str) -> list[LogEntry]:
    return [parse_log_line(line) for line in text.splitlines()]


def content(entries: list[LogEntry]) -> list[str]:
    return [describe(entry.frame) for entry in entries]


# ------------------------------------------------------------------------------- frames in and out


def test_what_is_sent_is_dumped(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    frames = ["123#DEADBEEF", "18FEF100#", "123#R4", "7FF##1" + "11" * 12, "000##2"]
    with dumping(runtime, tmp_path, "-L", "-n", "5", "rest") as dump:
        assert succeed("send", "rest", *frames) == ""
        assert dump.end() == 0
    entries = logged(dump.out)
    assert content(entries) == frames
    assert {entry.interface for entry in entries} == {"rest"}
    assert all(entry.timestamp_ns > 0 for entry in entries)
    assert dump.err == ""


def test_a_log_goes_round(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    path = tmp_path / "round.log"
    with dumping(runtime, tmp_path, "-L", "-n", "600", "rest") as dump:
        succeed("gen", "rest", "-m", "-g", "0", "-n", "600")
        assert dump.end() == 0
    path.write_text(dump.out)
    with dumping(runtime, tmp_path, "-L", "-n", "1800", "rest") as again:
        succeed("replay", str(path), "rest", "--speed", "10", "--loop", "3")
        assert again.end() == 0
    first = content(logged(dump.out))
    assert len(set(first)) > 500
    assert content(logged(again.out)) == first * 3


def test_generated_frames_are_as_asked_for(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    with dumping(runtime, tmp_path, "-L", "-n", "20", "body") as dump:
        succeed("gen", "body", *["-g", "1", "-n", "20", "-I", "i", "-L", "2", "-D", "i", "-e"])
        assert dump.end() == 0
    assert content(logged(dump.out)) == [f"{number:08X}#{number:02X}00" for number in range(20)]


def test_filters_are_candumps(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    with (
        dumping(runtime, tmp_path, "rest,123:7FF,200:700", "-n", "2") as passing,
        dumping(runtime, tmp_path, "rest,123~7FF", "-n", "2") as others,
        dumping(runtime, tmp_path, "rest,#FFFFFFFF,7FF:7FF", "-n", "1") as last,
    ):
        succeed("send", "rest", "122#01", "123#02", "2AA#03", "7FF#04")
        assert [passing.end(), others.end(), last.end()] == [0, 0, 0]
    assert passing.out == "  rest  123   [1]  02\n  rest  2AA   [1]  03\n"
    assert others.out == "  rest  122   [1]  01\n  rest  2AA   [1]  03\n"
    assert last.out == "  rest  7FF   [1]  04\n"


def test_several_channels_in_one_dump(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    log = tmp_path / "two.log"
    log.write_text(
        "".join(f"({n / 1000:.6f}) can{n % 2} {n:03X}#\n" for n in range(60))
        + "(0.060000) can2 7FF#\n"
    )
    with dumping(runtime, tmp_path, "-L", "-n", "60", "body", "rest", channels=2) as dump:
        succeed("replay", str(log), "body=can0", "rest=can1")
        assert dump.end() == 0
    entries = logged(dump.out)
    for channel, odd in (("body", 0), ("rest", 1)):
        got = [entry.frame.arbitration_id for entry in entries if entry.interface == channel]
        assert got == list(range(odd, 60, 2))


def test_a_dump_ends_when_nothing_comes(runtime: Runtime, server: Running) -> None:
    assert succeed("dump", "body", "-T", "50") == ""
    assert succeed("dump", "body", "rest", "-T", "50") == ""


def test_ctrl_c_ends_a_dump(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    with dumping(runtime, tmp_path, "-L", "rest") as dump:
        succeed("send", "rest", "123#01")
        wait_until(lambda: "123#01" in dump.out, "the frame is printed at once")
        assert dump.end(signal.SIGINT) == 130
    assert dump.err.strip() == ""


def test_a_reader_that_has_enough_ends_a_dump(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    with (
        subprocess.Popen(
            [*COMMAND, "dump", "rest"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as dump,
        Running(tmp_path, "gen", "rest", "-g", "1"),
    ):
        assert dump.stdout is not None
        assert dump.stderr is not None
        assert dump.stdout.readline().startswith("  rest  ")
        dump.stdout.close()
        assert dump.wait(DEADLINE_S) in {0, 1}
        assert dump.stderr.read() == ""


@pytest.mark.parametrize("channels", [["body"], ["body", "rest"]])
def test_a_dump_says_that_its_channel_is_gone(
    runtime: Runtime, tmp_path: Path, bench: Path, channels: list[str]
) -> None:
    with Running(tmp_path, "serve", "-c", str(bench)) as server:
        wait_until(lambda: "ready at ipc://" in server.err, "the broker is ready")
        with dumping(runtime, tmp_path, *channels, channels=len(channels)) as dump:
            succeed("stop")
            assert dump.end() == 1
        assert server.end() == 0
    assert any(dump.err.startswith(f"canbroker: dump: channel {name!r}: ") for name in channels)
    assert dump.err.count("\n") == 1


# ----------------------------------------------------------------------------------------- replay


def test_a_replay_takes_the_time_that_was_recorded(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "slow.log"
    log.write_text("(10.0) can0 001#\n(10.2) can0 002#\n(11.0) can0 003#\n")
    with dumping(runtime, tmp_path, "-L", "-n", "3", "rest") as dump:
        succeed("replay", str(log), "rest", "--speed", "2")
        assert dump.end() == 0
    entries = logged(dump.out)
    assert content(entries) == ["001#", "002#", "003#"]
    # A busy machine makes the first frame late, which takes from this; it never adds.
    assert entries[2].timestamp_ns - entries[0].timestamp_ns > 0.1e9
    assert entries[1].timestamp_ns <= entries[2].timestamp_ns


@pytest.mark.parametrize("pace", [["--speed", "0"], ["-g", "1"], ["--speed", "1e6"]])
def test_a_replay_that_does_not_wait_for_the_recorded_hour(
    runtime: Runtime, server: Running, tmp_path: Path, pace: list[str]
) -> None:
    log = tmp_path / "long.log"
    log.write_text("(0.0) rest 001#\n(3600.0) rest 002#\n")
    with dumping(runtime, tmp_path, "-L", "-n", "2", "rest") as dump:
        succeed("replay", str(log), *pace)
        assert dump.end() == 0
    assert content(logged(dump.out)) == ["001#", "002#"]


def test_a_replay_without_end_ends_with_ctrl_c(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "short.log"
    log.write_text("(0.0) can0 001#\n(0.01) can0 002#\n")
    with (
        dumping(runtime, tmp_path, "-L", "-n", "20", "rest") as dump,
        Running(tmp_path, "replay", str(log), "rest", "-l", "i") as replay,
    ):
        assert dump.end() == 0
        assert replay.end(signal.SIGINT) == 130
    assert content(logged(dump.out)) == ["001#", "002#"] * 10
    assert re.fullmatch(
        r"canbroker: replay: stopped after [0-9.]+ s: [0-9]+ frames were sent, 99 % of them within"
        r" [0-9.]+ ms; [0-9]+ that were waiting were taken back",
        replay.err.strip(),
    )


#: As the world has them: a mark of Windows, other text first, lost frames, a line that is cut.
WORLDLY = b"\xef\xbb\xbf# bench 3\r\n" + b"\r\n".join(
    [
        b"hello",
        b"(100.0) can0 001#",
        b"DROPCOUNT: dropped 3 CAN frames on 'can0' socket (total drops 3)",
        b"candump: interface can0 down",
        b"",
        b"(100.0)  can0 002#11 R",
        b"(100.0) can0 00123#81:00:12345678#1122",
        b"(100.0) can0 003#R8 T",
        b"(100.0) can0 004#2",
    ]
)
TOLD = (
    "skipped 7 lines without a frame to send: 1 comments (line 1: '# bench 3'), "
    "2 of other text (line 2: 'hello'), 1 of DROPCOUNT (line 4: "
)


def test_a_log_of_the_world_is_played_and_the_rest_counted(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "world.log"
    log.write_bytes(WORLDLY)
    with dumping(runtime, tmp_path, "-L", "-n", "6", "rest") as dump:
        done = run("replay", str(log), "rest", "--loop", "2")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(f"canbroker: replay: {log}: {TOLD}")
        assert done.stderr.endswith("; candump had lost 3 frames when it recorded\n")
        assert done.stderr.count("\n") == 1
        assert dump.end() == 0
    assert content(logged(dump.out)) == ["001#", "002#11", "003#R8"] * 2


def test_a_strict_replay_sends_nothing_of_a_log_with_other_lines(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "world.log"
    log.write_text("(1.0) can0 001#\n(1.0) can0 002#\n(1.")
    with dumping(runtime, tmp_path, "-L", "-n", "1", "rest") as dump:
        assert f"{log}, line 3: '(1.'" in fail("replay", "--strict", str(log), "rest")
        succeed("send", "rest", "7FF#")
        assert dump.end() == 0
    assert content(logged(dump.out)) == ["7FF#"]
    log.write_text("(1.0) can0 001#\n(1.0) can0 002#\n")
    assert succeed("replay", "--strict", str(log), "rest") == ""


@contextmanager
def replaying(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A replay of standard input."""
    pipe = subprocess.PIPE
    command = [*COMMAND, "replay", "-", *arguments]
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def is_in(text: str, dump: Running) -> bool:
    return text in dump.out


def test_a_replay_sends_what_a_pipe_has_at_once(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    with dumping(runtime, tmp_path, "-L", "rest") as dump, replaying("rest") as replay:
        assert replay.stdin is not None
        for number in range(3):
            replay.stdin.write(f"({number * 1e-3:f}) can0 00{number}#\n(9.0".encode())
            wait_until(partial(is_in, f" 00{number}#", dump), "it is sent while the pipe is open")
            replay.stdin.write(f") can0 rubbish {number}\n".encode())
        _, said = replay.communicate(timeout=DEADLINE_S)
        assert replay.returncode == 0
        assert dump.end(signal.SIGINT) == 130
    assert said.startswith(b"canbroker: replay: standard input: skipped 3 lines")
    assert content(logged(dump.out)) == ["000#", "001#", "002#"]


def test_standard_input_is_played_once_and_must_have_what_is_assigned(server: Running) -> None:
    with replaying("body=can1", "rest=can0") as replay:
        _, said = replay.communicate(b"(1.0) can0 123#\n", timeout=DEADLINE_S)
        assert replay.returncode == 1
    assert said == b"canbroker: replay: standard input has no interface 'can1'\n"
    with replaying("rest", "--loop", "2") as replay:
        _, said = replay.communicate(b"(1.0) can0 123#\n", timeout=DEADLINE_S)
        assert replay.returncode == 2
    assert b"standard input can be played once only" in said


def test_an_endless_replay_of_nothing_to_send_ends(server: Running, tmp_path: Path) -> None:
    log = tmp_path / "errors.log"
    log.write_text("(0.0) can0 20000004#0004000000000000\n")
    done = run("replay", str(log), "rest", "--loop", "i")
    assert done.returncode == 0
    assert done.stderr == "canbroker: replay: 1 error frames are not sent\n"


def test_a_recording_clock_that_steps_back_starts_timing_anew(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "set.log"
    log.write_text("(5000.0) can0 001#\n(1.0) can0 002#\n(1.3) can0 003#\n(1.6) can0 004#\n")
    with dumping(runtime, tmp_path, "-L", "-n", "4", "rest") as dump:
        succeed("replay", str(log), "rest")
        assert dump.end() == 0
    entries = logged(dump.out)
    assert content(entries) == ["001#", "002#", "003#", "004#"]
    # A busy machine makes frames late, which takes from this; in a burst there is nothing.
    assert entries[3].timestamp_ns - entries[1].timestamp_ns > 0.3e9


def test_a_channel_that_appears_late_in_a_log_is_opened_then(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "late.log"
    lines = [f"({number}.0) rest {number % 0x800:03X}#" for number in range(5000)]
    log.write_text("\n".join([*lines, "(5000.0) body 00000123#", ""]))
    with dumping(runtime, tmp_path, "-L", "-n", "1", "body") as dump:
        succeed("replay", str(log), "--speed", "0")
        assert dump.end() == 0
    assert content(logged(dump.out)) == ["00000123#"]


def test_a_dump_of_error_frames_can_be_played(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "errors.log"
    with (
        dumping(runtime, tmp_path, "-L", "-n", "3", "rest") as dump,
        canbroker.Bus("rest", broker=str(runtime.address)) as bus,
    ):
        for identifier, extended in ((0x4, False), (0x1000, True)):
            error = canbroker.Message(
                arbitration_id=identifier,
                is_extended_id=extended,
                is_error_frame=True,
                data=bytes(8),
            )
            bus.send(error)
        bus.send(canbroker.Message(arbitration_id=0x123, is_extended_id=False))
        assert dump.end() == 0
    log.write_text(dump.out)
    assert "20001000#0000000000000000" in dump.out
    done = run("replay", "--strict", str(log), "rest")
    assert (done.returncode, done.stderr) == (
        0,
        "canbroker: replay: 2 error frames are not sent\n",
    )


def test_error_frames_of_a_log_are_left_out_and_counted(
    runtime: Runtime, server: Running, tmp_path: Path
) -> None:
    log = tmp_path / "errors.log"
    log.write_text("(0.0) can0 001#\n(0.0) can0 20000004#0004000000000000\n(0.0) can0 002#\n")
    with dumping(runtime, tmp_path, "-L", "-n", "2", "rest") as dump:
        done = run("replay", str(log), "rest")
        assert done.returncode == 0
        assert done.stderr == "canbroker: replay: 1 error frames are not sent\n"
        assert dump.end() == 0
    assert content(logged(dump.out)) == ["001#", "002#"]


# ----------------------------------------------------------------------------------------- broker


def test_the_status_tells_everything(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    wait_until(
        lambda: all(channel.state for channel in status_of(runtime).channels),
        "the broker has heard of every channel",
    )
    with dumping(runtime, tmp_path, "rest,123:7FF") as dump:
        status = json.loads(succeed("status", "--json"))
        page = succeed("status")
    assert status["address"] == str(runtime.address)
    assert status["pid"] == server.process.pid
    channels = {channel["name"]: channel for channel in status["channels"]}
    assert list(channels) == ["body", "rest"]
    (client,) = channels["rest"]["clients"]
    assert client["pid"] == dump.process.pid
    assert client["filters"] == "123:7ff^"
    uses = {use["name"]: use for use in status["processes"]}
    assert {name: use["pid"] for name, use in uses.items()} == {
        "broker": server.process.pid,
        "body": channels["body"]["pid"],
        "rest": channels["rest"]["pid"],
    }
    for use in uses.values():
        assert use["memory_bytes"] > 1e6
        assert use["descriptors"] > 2
        assert use["cpu_percent"] >= 0
    lines = [line.split() for line in page.splitlines()]
    assert lines[0][:2] == ["broker", str(runtime.address)]
    assert ["body", "virtual", "body", "active", "500k"] in [line[:5] for line in lines]
    assert [client["client_id"], str(client["pid"]), "rest"] in [line[:3] for line in lines]
    assert ["broker", str(server.process.pid)] in [line[:2] for line in lines]


def test_the_status_says_why_a_channel_has_failed(runtime: Runtime, tmp_path: Path) -> None:
    config = tmp_path / "broken.toml"
    config.write_text('[channels.gone]\ninterface = "slcan"\nchannel = "/dev/no-such-tty"\n')
    with serving(tmp_path, "-c", str(config)):
        wait_until(
            lambda: status_of(runtime).channels[0].phase == "failed", "the channel has failed"
        )
        page = succeed("status")
        assert "gone: cannot open /dev/no-such-tty: there is no such device" in page
        assert "/dev/no-such-tty" in fail("dump", "gone")


def test_stop_leaves_nothing(runtime: Runtime, tmp_path: Path, bench: Path) -> None:
    with Running(tmp_path, "serve", "-c", str(bench)) as server:
        wait_until(lambda: "ready at ipc://" in server.err, "the broker is ready")
        assert succeed("stop") == f"stopped the broker at {runtime.address}\n"
        assert list(runtime.directory.iterdir()) == []
        assert server.end() == 0
    assert "channel body: virtual bitrate=500000" in server.err
    assert f"ready at {runtime.address}" in server.err
    assert fail("stop") == f"canbroker: stop: no broker at {runtime.address}\n"
    assert fail("status") == f"canbroker: status: no broker at {runtime.address}\n"


def test_no_broker_where_there_has_never_been_one(runtime: Runtime) -> None:
    for command in (["stop"], ["status"], ["status", "--json"]):
        assert f"no broker at {runtime.address}" in fail(*command)
    assert not runtime.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_stop_a_broker_in_order(
    runtime: Runtime, tmp_path: Path, bench: Path, number: signal.Signals
) -> None:
    with Running(tmp_path, "serve", "-c", str(bench)) as server:
        wait_until(lambda: "ready at ipc://" in server.err, "the broker is ready")
        wait_until(
            lambda: all(c.phase == "running" for c in status_of(runtime).channels), "all are up"
        )
        # A terminal's signal goes to actors, too, which leave it to the broker.
        for process in processes_of(runtime):
            process.send_signal(number)
        assert server.end(number) == 0
    assert "Traceback" not in server.err
    assert "restart in" not in server.err
    assert list(runtime.directory.iterdir()) == []


def test_a_closed_terminal_does_not_end_what_nohup_has_started(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as nohup does it
    try:
        with serving(tmp_path) as server:
            server.process.send_signal(signal.SIGHUP)
            succeed("status")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_broker_is_refused(runtime: Runtime, server: Running) -> None:
    assert fail("serve") == f"canbroker: serve: a broker runs at {runtime.address} already\n"
    assert json.loads(succeed("status", "--json"))["pid"] == server.process.pid


def test_a_broker_elsewhere(runtime: Runtime, tmp_path: Path, bench: Path) -> None:
    directory = runtime.directory.parent / "other"
    directory.mkdir(mode=0o700)
    address = f"ipc://{directory}/broker"
    bench.write_text(f'[broker]\naddress = "{address}"\n{BENCH}')
    with serving(tmp_path, "-c", str(bench)):
        succeed("send", "rest", "123#", "--broker", address)
        assert "no broker at" in fail("status")
        assert json.loads(succeed("status", "--json", "--broker", address))["address"] == address
    assert list(directory.iterdir()) == []


def test_the_option_comes_before_the_configured_address(
    runtime: Runtime, tmp_path: Path, bench: Path
) -> None:
    bench.write_text(f'[broker]\naddress = "ipc:///nowhere/at/all/broker"\n{BENCH}')
    with serving(tmp_path, "-c", str(bench), "--broker", str(runtime.address)):
        assert json.loads(succeed("status", "--json"))["address"] == str(runtime.address)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read the configuration"),
        ("[channels.x]\ninterface = 'virtual'\nbitrat = 1\n", "line 3, channels.x.bitrat"),
        ("[channels.x\n", "not valid TOML"),
        ("[channels.x]\ninterface = 'vector'\n", "line 1, channels.x: interface 'vector' needs"),
    ],
)
def test_a_wrong_configuration_is_named(
    runtime: Runtime, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "wrong.toml"
    if text is not None:
        path.write_text(text)
    done = run("serve", "-c", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith("canbroker: serve: ")
    assert said in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not runtime.lock_path.exists()


def test_a_command_starts_a_broker_if_it_may(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANBROKER_AUTOSTART", "0")
    assert f"no broker at {runtime.address}" in fail("send", "-i", "virtual", "x", "123#01")
    monkeypatch.delenv("CANBROKER_AUTOSTART")
    with dumping(runtime, tmp_path, "-i", "virtual", "x", "-n", "1") as dump:
        succeed("send", "virtual.x", "123#01")  # by the name of the channel that is open
        assert dump.end() == 0
    assert dump.out == "  x  123   [1]  01\n"
    assert status_of(runtime).autostarted


# ----------------------------------------------------------------------------------------- errors


def test_what_users_get_wrong_is_named(runtime: Runtime, server: Running, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("(0.0) can0 123#\n")
    known = "channels of this broker: 'body', 'rest'"
    assert f"no channel 'can7'; {known}" in fail("dump", "can7")
    assert f"no channel 'can7'; {known}" in fail("send", "can7", "123#")
    assert f"no channel 'can0'; {known}" in fail("replay", str(log))
    assert f"no channel 'can7'; {known}" in fail("gen", "can7")
    assert "unknown interface 'nope'" in fail("dump", "-i", "nope", "x")
    assert "has no parameter 'colour'" in fail("dump", "-i", "virtual", "x", "-p", "colour=1")
    assert "bitrate must be 1000 to" in fail("dump", "-i", "virtual", "x", "-b", "3")
    assert "is open with bitrate=500000, not bitrate=250000" in fail("dump", "body", "-b", "250000")
    assert "/dev/no-such-tty" in fail("dump", "-i", "slcan", "/dev/no-such-tty")
    assert f"no-such.log: {os.strerror(errno.ENOENT)}" in fail("replay", "no-such.log", "body")
    assert "has no interface 'can1'" in fail("replay", str(log), "body=can1", code=2)
    assert "is not a CAN frame" in fail("send", "body", "xyz", code=2)
    assert "is not id:mask" in fail("dump", "body,xyz", code=2)
    assert succeed("send", "body", "123#") == ""  # the broker has taken no harm


# -------------------------------------------------------------------------------------- simulation


def test_a_simulated_adapter_in_use(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    log.write_text("(0.0) can0 123#01\n(0.01) can0 18FEF100#02\n")
    with Running(tmp_path, "simulate", "slcan", "--replay", str(log), "--loop") as simulator:
        wait_until(lambda: "\n" in simulator.out, "the simulator has printed its path")
        path = simulator.out.splitlines()[0]
        with dumping(runtime, tmp_path, "-i", "slcan", path, "-b", "500000") as dump:
            succeed("send", "-i", "slcan", path, "7DF#02", "-p", "bitrate=500000")
            expected = ["  123   [1]  01\n", "  18FEF100   [1]  02\n", "     7DF   [1]  02\n"]
            wait_until(lambda: all(line in dump.out for line in expected), "all are dumped")
            assert dump.end(signal.SIGINT) == 130
        assert simulator.end(signal.SIGINT) == 0
    ledger = json.loads(simulator.out.splitlines()[-1])
    assert (ledger["event"], ledger["accepted"]) == ("exit", 1)
    assert simulator.err == ""


def test_a_frame_that_the_adapter_does_not_take_is_a_failure(runtime: Runtime) -> None:
    with Simulated() as adapter:
        listening = ("-i", "slcan", adapter.path, "-p", "listen_only=true")
        assert "123#01" in fail("send", *listening, "123#01")


def test_a_log_that_cannot_be_simulated(runtime: Runtime, tmp_path: Path) -> None:
    assert "cannot read" in fail("simulate", "slcan", "--replay", str(tmp_path / "none.log"))
