"""The example subscribers, which know the protocol's document and nothing of canbroker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from canbroker import Bus, Message
from canbroker.transport.runtime import Runtime
from canbroker.wire import topics
from tests.support.brokers import status_of, stop_broker, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
DEADLINE_S = 30.0

#: What is sent, as candump writes it.
SENT = {
    "451#01020304": Message(arbitration_id=0x451, is_extended_id=False, data=[1, 2, 3, 4]),
    "18DAF110#": Message(arbitration_id=0x18DAF110),
    "123#R8": Message(arbitration_id=0x123, is_extended_id=False, is_remote_frame=True, dlc=8),
    "00000451#R0": Message(arbitration_id=0x451, is_remote_frame=True),
    "452##0" + "AB" * 12: Message(
        arbitration_id=0x452, is_extended_id=False, is_fd=True, data=[0xAB] * 12
    ),
    "001##3" + "00" * 64: Message(
        arbitration_id=0x1,
        is_extended_id=False,
        is_fd=True,
        bitrate_switch=True,
        error_state_indicator=True,
        data=64,
    ),
}


def c_subscriber(directory: Path) -> list[str]:
    """Builds the subscriber in C, with every warning an error."""
    compiler = shutil.which("cc")
    header = [compiler or "", "-fsyntax-only", "-x", "c", "-include", "zmq.h", os.devnull]
    if compiler is None or subprocess.run(header, capture_output=True, check=False).returncode:
        reason = (
            "needs a C compiler and libzmq's header (apt-get install gcc libc6-dev libzmq3-dev)"
        )
        # A machine of a user may be without; where CI has prepared it, it is there.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    program = directory / "subscriber"
    source = str(EXAMPLES / "subscriber.c")
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "-o", str(program), source, "-lzmq"], check=True
    )
    return [str(program)]


@pytest.fixture(scope="module", params=["python", "c"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if request.param == "python":
        return [sys.executable, str(EXAMPLES / "subscriber.py")]
    return c_subscriber(tmp_path_factory.mktemp("c"))


@contextmanager
def running(
    program: list[str], runtime: Runtime, filters: str, *count: int
) -> Iterator[subprocess.Popen[str]]:
    """The subscriber on the only channel of the broker."""
    (channel,) = status_of(runtime).channels
    command = [*program, channel.stream, topics.encode_channel(channel.name), filters]
    process = subprocess.Popen(
        [*command, *map(str, count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"


@pytest.mark.parametrize("channel", ["x", "a b/ü"])
def test_every_kind_of_frame_is_understood(
    runtime: Runtime, program: list[str], channel: str
) -> None:
    with Bus(channel, "virtual", fd=True) as sender, Bus(channel, "virtual") as reference:
        with running(program, runtime, "", len(SENT)) as process:
            wait_ready(process)
            sender.send_batch(list(SENT.values()))
            lines, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
        assert errors == f"received {len(SENT)}, lost 0\n"
        received = [reference.recv(DEADLINE_S) for _ in SENT]
        assert [line.split(" ")[1] for line in lines.splitlines()] == list(SENT)
        for line, message in zip(lines.splitlines(), received, strict=True):
            assert message is not None
            assert float(line.split(" ")[0].strip("()")) == pytest.approx(
                message.timestamp, abs=1.5e-6, rel=0
            )


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ("?451:7ff", ["451#01020304", "00000451#R0"]),
        ("?s451:7ff,452:7ff", ["451#01020304", "452##0" + "AB" * 12]),
        ("?x", ["18DAF110#", "00000451#R0"]),
        ("?123:7ff,1:1", ["451#01020304", "123#R8", "00000451#R0", "001##3" + "00" * 64]),
    ],
)
def test_its_filters_work_where_the_adapter_is(
    runtime: Runtime, program: list[str], filters: str, passing: list[str]
) -> None:
    with Bus("x", "virtual", fd=True) as sender:
        with running(program, runtime, filters, 100 * len(passing)) as process:
            wait_ready(process)
            for _ in range(100):
                sender.send_batch(list(SENT.values()))
            lines, errors = process.communicate(timeout=DEADLINE_S)
        assert errors == f"received {100 * len(passing)}, lost 0\n"
        assert [line.split(" ")[1] for line in lines.splitlines()] == 100 * passing


def test_it_is_a_client_until_it_is_killed(runtime: Runtime, program: list[str]) -> None:
    def present() -> dict[str, str]:
        state = status_of(runtime).channels[0].state
        return {client.client_id: client.filters for client in state.clients} if state else {}

    with Bus("x", "virtual"):
        wait_until(lambda: list(present().values()) == [""], "the bus is listed")
        with running(program, runtime, "?7:7") as process:
            wait_ready(process)
            wait_until(lambda: set(present().values()) == {"", "007:007"}, "it is listed")
            process.kill()
            wait_until(lambda: list(present().values()) == [""], "it is gone")


def test_it_is_told_what_is_wrong(runtime: Runtime, program: list[str]) -> None:
    with Bus("x", "virtual") as bus, running(program, runtime, "?zz") as process:
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert "filter 'zz' is not" in errors
        assert bus.state.name == "ACTIVE"


def test_it_is_told_that_the_stream_ends(runtime: Runtime, program: list[str]) -> None:
    with Bus("x", "virtual"), running(program, runtime, "") as process:
        wait_ready(process)
        assert stop_broker(runtime)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert errors == "the broker was told to stop\n"
