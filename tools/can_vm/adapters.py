"""can0 and can1: the kernel's slcan driver over two ptys. This process is both adapters and the bus
between them.

A line ``can0 TEXT`` that is written to /run/slcan.ctl, which is there when both are up, is what
can0's adapter says next.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import threading
import tty
from pathlib import Path

CONTROL = Path("/run/slcan.ctl")
TIOCSETD = 0x5423  # asm-generic/ioctls.h
N_SLCAN = 17  # linux/tty.h
SIOCGIFNAME = 0x8910  # linux/sockios.h
FRAMES = b"tTrR"


class Adapter:
    """One adapter and the interface that the kernel makes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port, self._terminal = pty.openpty()  # the terminal's end keeps the interface alive
        tty.setraw(self.port)
        tty.setraw(self._terminal)
        self.open = False
        self.speed = b""
        self._buffer = b""
        fcntl.ioctl(self._terminal, TIOCSETD, struct.pack("i", N_SLCAN))
        named = fcntl.ioctl(self._terminal, SIOCGIFNAME, bytes(16)).split(b"\0")[0].decode()
        if named != name:
            ip(named, "name", name)

    def lines(self) -> list[bytes]:
        """The commands that have come from the kernel."""
        *lines, self._buffer = (self._buffer + os.read(self.port, 4096)).split(b"\r")
        return lines

    def say(self, line: bytes) -> None:
        os.write(self.port, line + b"\r")


def ip(*words: str) -> None:
    subprocess.run(["ip", "link", "set", *words], check=True)  # noqa: S607


def bring_up(interfaces: list[str], unready: Path) -> None:
    """In a thread: the driver waits until its adapter has read the commands."""
    for interface in interfaces:
        ip(interface, "type", "can", "bitrate", "500000")
        ip(interface, "up")
    unready.rename(CONTROL)


def obey(adapter: Adapter, line: bytes, others: list[Adapter]) -> None:
    kind = line[:1]
    if kind == b"S":
        adapter.speed = line
    elif kind in {b"O", b"L"}:
        adapter.open = True
    elif kind == b"C":
        adapter.open = False
    elif kind and kind in FRAMES:
        for other in others:
            if other.open and other.speed == adapter.speed:
                other.say(line)
        adapter.say(b"z" if kind in b"tr" else b"Z")


def main() -> None:
    adapters = {name: Adapter(name) for name in ("can0", "can1")}
    unready = CONTROL.with_suffix(".new")
    os.mkfifo(unready)
    control = os.open(unready, os.O_RDWR)
    threading.Thread(target=bring_up, args=([*adapters], unready), daemon=True).start()
    told = b""
    ports = {adapter.port: adapter for adapter in adapters.values()}
    while True:
        for ready in select.select([control, *ports], [], [])[0]:
            if ready == control:
                *reports, told = (told + os.read(control, 4096)).split(b"\n")
                for report in reports:
                    interface, text = report.split(None, 1)
                    adapters[interface.decode()].say(text)
            else:
                adapter = ports[ready]
                others = [other for other in adapters.values() if other is not adapter]
                for line in adapter.lines():
                    obey(adapter, line, others)


if __name__ == "__main__":
    main()
