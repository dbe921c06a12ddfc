"""What tests use of a kernel that has CAN: the peer on a virtual interface, and its absence."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import pytest

from canbroker.backends.socketcan.codec import CANFD_MTU, decode, encode
from canbroker.model.frame import Frame
from tests.support.brokers import wait_until
from tests.support.systems import is_root

#: The interface that tests share; they run one after the other.
VCAN = "vcan0"


def missing() -> str | None:
    """Why tests on a CAN interface cannot run here; ``None`` if they can.

    Inside tools/can-vm they always run: there a missing interface is a failure.
    """
    if "CAN_VM" in os.environ or Path(f"/sys/class/net/{VCAN}").exists():
        return None
    return f"no {VCAN}: run in tools/can-vm, or: ip link add {VCAN} type vcan"


needs_can = pytest.mark.skipif(missing() is not None, reason=missing() or "")
needs_admin = pytest.mark.skipif(not is_root(), reason="only root may change interfaces")


def ip(*words: str) -> None:
    """Runs ``ip link WORDS``."""
    subprocess.run(["ip", "link", *words], check=True, capture_output=True, text=True)  # noqa: S607


def exists(interface: str) -> bool:
    return Path(f"/sys/class/net/{interface}").exists()


def filters_of(interface: str, kind: str = "fil") -> list[tuple[int, int]]:
    """``(can_id, mask)`` of every filter that the kernel has for an interface.

    Kinds: ``all``, ``fil`` (by mask), ``eff``, ``sff`` (one identifier), ``err``.
    """
    lines = Path(f"/proc/net/can/rcvlist_{kind}").read_text().splitlines()
    words = [line.split() for line in lines]
    return [(int(w[1], 16), int(w[2], 16)) for w in words if len(w) > 5 and w[0] == interface]


def listeners(interface: str = VCAN) -> int:
    """How many sockets receive everything on an interface."""
    return len(filters_of(interface, "all"))


def wait_for_listener(before: int, interface: str = VCAN) -> None:
    """Waits until one more socket listens than ``before``."""
    wait_until(lambda: listeners(interface) > before, "another program listens")


#: As candump writes a log, with room for what comes while it writes.
LOGGED: Final = ("-L", "-r", "4000000")


@contextmanager
def candump(
    count: int, *options: str, stdout: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """``candump`` listens; it ends after ``count`` frames."""
    before = listeners()
    command = ["candump", *options, "-n", str(count), VCAN]
    with subprocess.Popen(command, stdout=stdout, text=True) as process:
        try:
            wait_for_listener(before)
            yield process
        finally:
            process.kill()


@contextmanager
def one_processor() -> Iterator[None]:
    """Keeps this thread and all that it starts on one processor.

    vcan queues frames per processor, so two sockets may see those of concurrent senders in
    different orders. A controller has one order.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


#: Of linux/socket.h; Python has no name for it.
_SO_RCVBUFFORCE: Final = 33


class Node:
    """Another node: a raw socket of its own. A context manager."""

    def __init__(self, interface: str = VCAN) -> None:
        self.socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        try:
            self.socket.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
            # Frames wait there while a test waits for something else; without the right to more,
            # the system gives room for some 270.
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
            except PermissionError:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.socket.bind((interface,))
        except BaseException:
            self.socket.close()
            raise
        self.received: list[Frame] = []

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.socket.send(encode(frame))

    def drain(self) -> list[Frame]:
        """All that this node has received so far."""
        try:
            while True:
                self.received.append(decode(self.socket.recv(CANFD_MTU, socket.MSG_DONTWAIT), 0))
        except BlockingIOError:
            return self.received
