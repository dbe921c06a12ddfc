"""``canbroker dump`` beside candump: the same lines, byte for byte."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from canbroker.model.frame import BITRATE_SWITCH, ERROR_STATE_INDICATOR, EXTENDED, FD, REMOTE, Frame
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of, wait_until
from tests.support.vcan import VCAN, Node, candump, needs_can

pytestmark = needs_can

FRAMES = [
    Frame(0, 0x123, 0, b"\xde\xad"),
    Frame(0, 0x7FF, 0, b""),
    Frame(0, 0x123, REMOTE, 0),
    Frame(0, 0x123, REMOTE, 5),
    Frame(0, 0x123, FD | BITRATE_SWITCH, bytes(range(12))),
    Frame(0, 0x123, FD | ERROR_STATE_INDICATOR, b""),
    Frame(0, 0x12345678, EXTENDED, b"\1"),
    Frame(0, 0x12345678, EXTENDED | FD, bytes(64)),
    Frame(0, 0x124, 0, bytes(8)),
]
#: The microseconds of so many timestamps would not be cut alike by chance.
ROUNDS = 20
COUNT = ROUNDS * len(FRAMES)


@contextmanager
def dump(runtime: Runtime, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = EntryPoint.COMMAND.command("dump", *options, "-n", str(COUNT))
    command += ["-i", "socketcan", "-p", "fd=true", VCAN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: bool(status_of(runtime).channels), "the broker runs", 30)
            wait_until(lambda: is_receiving(runtime), "the program receives", 30)
            yield process
        finally:
            process.kill()


def is_receiving(runtime: Runtime) -> bool:
    channels = status_of(runtime).channels
    return bool(channels and channels[0].state and channels[0].state.routes)


@pytest.mark.parametrize("options", [("-L",), ("-t", "a"), ()])
def test_the_same_lines(runtime: Runtime, node: Node, options: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        theirs = stack.enter_context(candump(COUNT, *options))
        ours = stack.enter_context(dump(runtime, *options))
        for _ in range(ROUNDS):
            node.send(FRAMES)
        expected = theirs.communicate(timeout=30)[0].splitlines()
        assert ours.communicate(timeout=30)[0].splitlines() == expected
        assert len(expected) == COUNT
