"""``python -m benchmarks.vendor``: python-can's PCAN bus and canbroker on one adapter, at once.

The adapter is the double of PCAN's library in ``tests/vendor``. One of its channels is read by a
program with python-can, the other by a client of a broker; a third node sends the same frames to
both, evenly. So whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.usage import cpu_s
from canbroker.demo.broker import BrokerView
from canbroker.model.frame import Frame
from canbroker.transport.runtime import Runtime
from tests.vendor.bus import VendorBus, vendor_bus

_THEIRS, _OURS = "python-can", "canbroker"

#: The frame that ends it; the others have smaller identifiers.
_LAST: Final = 0x7FF

_CHANNELS: Final = {_THEIRS: "PCAN_USBBUS1", _OURS: "PCAN_USBBUS2"}
_QUIET_S: Final = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vendor", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=8000, help="frames a second")
    parser.add_argument("--read", choices=_CHANNELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        return _read(arguments.read)
    place = tempfile.mkdtemp(prefix="cb-bench-")
    os.environ["XDG_RUNTIME_DIR"] = place
    try:
        with vendor_bus() as bus, BrokerView(Runtime.at()) as broker:
            found = _measure(bus, broker, arguments.rate, arguments.seconds)
    finally:
        shutil.rmtree(place)
    Console(width=160).print(_table(found, arguments.rate, arguments.seconds))
    return 0


def _measure(
    bus: VendorBus, broker: BrokerView, rate: int, seconds: int
) -> dict[str, dict[str, float]]:
    readers = {name: _Reader(name) for name in _CHANNELS}
    try:
        pids = {name: [reader.process.pid] for name, reader in readers.items()}
        actor = broker.channel().pid
        if actor is None:
            raise RuntimeError("the channel has no process")
        pids[_OURS].append(actor)
        bus.generate(1000, 1000)  # warm
        began = time.monotonic()
        before = {name: [cpu_s(pid) for pid in used] for name, used in pids.items()}
        bus.generate(rate, rate * seconds)
        took_s = time.monotonic() - began
        used = {
            name: [cpu_s(pid) - was for pid, was in zip(pids[name], before[name], strict=True)]
            for name in pids
        }
        bus.send([Frame(0, _LAST, 0, b"")])
        found = {name: reader.result() for name, reader in readers.items()}
    finally:
        for reader in readers.values():
            reader.end()
    for name, result in found.items():
        result["sent"] = 1000 + rate * seconds
        result["CPU"] = sum(used[name]) / took_s
        for part, spent in zip(("reader", "actor"), used[name], strict=False):
            result[f"CPU {part}"] = spent / took_s
    return found


class _Reader:
    """A process that reads one of the channels."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vendor", "--read", name],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == {"ready": 1.0}  # noqa: S101

    def result(self) -> dict[str, float]:
        return self._line()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def _line(self) -> dict[str, float]:
        assert self.process.stdout is not None  # noqa: S101
        found: dict[str, float] = json.loads(self.process.stdout.readline() or "{}")
        return found


def _read(name: str) -> int:
    """Receives until the last frame comes, or none for a while; prints what was found."""
    bus: Any
    if name == _OURS:
        from canbroker import Bus  # noqa: PLC0415

        bus = Bus(_CHANNELS[name], "pcan")
    else:
        import can  # noqa: PLC0415

        bus = can.Bus(_CHANNELS[name], interface="pcan", ignore_config=True)
    print(json.dumps({"ready": 1.0}), flush=True)
    late_ns = _receive(bus.recv)
    quantiles = statistics.quantiles(late_ns, n=1000)
    print(
        json.dumps(
            {
                "received": len(late_ns),
                "p50": quantiles[499] / 1e6,
                "p99": quantiles[989] / 1e6,
                "max": max(late_ns) / 1e6,
            }
        ),
        flush=True,
    )
    bus.shutdown()
    return 0


def _receive(recv: Callable[[float], Any]) -> Sequence[int]:
    late_ns: list[int] = []
    while (message := recv(_QUIET_S)) is not None and message.arbitration_id != _LAST:
        late_ns.append(time.time_ns() - int.from_bytes(message.data, "little"))
    return late_ns


#: How figures are shown; all others are parts of a processor.
_FORMS: Final = {
    **dict.fromkeys(("sent", "received"), (1, "{:,.0f}")),
    **dict.fromkeys(("p50", "p99", "max"), (1, "{:.3f} ms")),
}


def _table(found: dict[str, dict[str, float]], rate: int, seconds: int) -> Table:
    table = Table(title=f"{rate:,} frames/s received from a double of PCAN for {seconds} s")
    for column in ("", *found, "canbroker / python-can"):
        table.add_column(column, justify="right")
    for key in ("sent", "received", "p50", "p99", "max", "CPU", "CPU reader", "CPU actor"):
        values = [found[name].get(key) for name in found]
        scale, form = _FORMS.get(key, (100, "{:.1f} %"))
        shown = ["-" if v is None else form.format(v * scale) for v in values]
        both = None not in values and key not in {"sent", "received", "CPU reader"}
        ratio = f"{values[1] / values[0]:.2f}" if both else ""  # type: ignore[operator]
        table.add_row(key, *shown, ratio)
    return table


if __name__ == "__main__":
    sys.exit(main())
