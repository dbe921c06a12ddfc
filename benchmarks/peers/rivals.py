"""sockcan: a daemon in Python, compiled with mypyc, and clients that write frames to a stream.

As its documentation has it: a virtual bus of ``python -m sockcan.daemon``, and the functions for
sending and receiving that it builds for a socket. Nothing is acknowledged.
"""

from __future__ import annotations

import importlib.util
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.peers import SILENCE_S, Peer, Receiver, Sender, await_port, free_port

SOCKCAN: Final = "sockcan"
_HOST: Final = "127.0.0.1"
_CHANNEL: Final = "vcan0"


class SockcanPort(Sender, Receiver):
    """A client of the daemon at a port of this host. It does not receive what it sends."""

    def __init__(self, port: str) -> None:
        import sockcan  # noqa: PLC0415 - where it is installed: it needs Python 3.12
        from sockcan._protocol import CanMessage  # noqa: PLC0415
        from sockcan.daemon import connect_socketcan_client  # noqa: PLC0415

        self._socket = connect_socketcan_client(_HOST, int(port), _CHANNEL)
        # By the kernel: a timeout of Python's would cost one more call for each frame.
        silence = struct.pack("ll", int(SILENCE_S), 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
        self._send = sockcan.build_send_func(self._socket, expects_msg_cls=True, is_stream=True)
        self._recv = sockcan.build_recv_func(
            self._socket, use_native_timestamps=False, is_stream=True
        )
        self._message = CanMessage

    def message(self, arbitration_id: int, data: bytes, *, extended: bool = False) -> Any:
        return self._message(arbitration_id, data, extended, 0.0)

    def send(self, message: Any) -> None:
        self._send(message)

    def count(self, expected: int) -> tuple[int, int]:
        recv, now_ns = self._recv, time.monotonic_ns
        received = last = 0
        try:
            while received < expected:
                recv()
                last = now_ns()
                received += 1
        except OSError:  # silence
            pass
        return received, last

    def receive(self) -> bytes | None:
        try:
            return bytes(self._recv().data)
        except OSError:
            return None

    def close(self) -> None:
        self._socket.close()


def has_sockcan() -> bool:
    """Whether it is installed: the extra ``bench-rivals``, with Python 3.12 or later."""
    return importlib.util.find_spec("sockcan") is not None


@contextmanager
def sockcan() -> Iterator[Peer]:
    """Its daemon, with one virtual bus, and clients of that."""
    port = free_port()
    command = [sys.executable, "-m", "sockcan.daemon", "run-daemon", _CHANNEL, "--virtual"]
    command += ["--host-ip", _HOST, "--port", str(port)]
    daemon = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # it runs until it is sent a line
    try:
        await_port(port)
        yield Peer(SOCKCAN, str(port), SockcanPort, SockcanPort, daemon.pid, classic_only=True)
    finally:
        daemon.kill()
        daemon.communicate()
