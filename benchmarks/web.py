"""``python -m benchmarks.web``: what four open pages cost, and whether others notice them.

A program sends as many frames a second as fit on a bus of 1 Mbit/s, with 300 identifiers, on a
virtual channel; another one receives all of them, and measures how old they are. In turns, nobody
looks at the web page, and four pages show the table, one of them with a trace. With ``--signals``,
a database describes all messages: the trace and the 40 rows that each page can see are decoded.
Pages are sockets that read what they are told, and do nothing with it, at a low priority: a browser
would run elsewhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from rich.console import Console
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from benchmarks.figures import percentile
from benchmarks.pace import paced
from benchmarks.periodic import private_broker
from benchmarks.record import FULL_RATE
from benchmarks.usage import cpu_s, resident_mb
from canbroker import Bus, Message
from canbroker.bus import discovery
from canbroker.keys.authorized import Role
from canbroker.keys.web_tokens import cookie_of, load_or_create, tokens_path
from canbroker.system.entry_points import EntryPoint
from canbroker.system.priority import lower_priority
from canbroker.transport.runtime import Runtime
from canbroker.transport.sockets import SharedContext
from canbroker.wire import control
from canbroker.wire.status import BrokerStatus, WebStatus

PAGES: Final = 4
IDENTIFIERS: Final = 300
_AT_ONCE: Final = 20

#: Before a phase: pages are told everything first, and a channel that no page looks at any more is
#: followed for five seconds.
_SETTLE_S: Final = {0: 6.0, PAGES: 2.0}

_CONFIG: Final = """
[channels.can0]
interface = "virtual"
{database}

[web]
listen = "127.0.0.1:0"
"""

#: Of each message: a byte for each signal.
_SIGNALS: Final = 8

#: Rows of the table that fit a window; the page asks for their signals by these keys: identifier,
#: and that they were sent by a client.
_SEEN: Final = [identifier << 4 | 8 for identifier in range(40)]

Pipe: TypeAlias = "Connection[Any, Any]"


class Phase(NamedTuple):
    """``p50`` and ``p99`` in milliseconds; ``cores`` of the web actor; ``told``: bytes a second
    that all pages were told."""

    pages: int
    p50: float
    p99: float
    frames: int
    lost: int
    cores: float
    mb: float
    told: float


def main() -> int:
    """Prints a line for each phase, and the verdict; returns 1 if it is not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--signals", action="store_true", help="decode; needs the extra signals")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.print(f"{FULL_RATE:,} frames/s, {IDENTIFIERS} identifiers")
    phases = []
    with private_broker() as runtime, _serving(runtime, arguments.signals):
        status = _web(runtime)
        with _traffic() as receiver:
            for _ in range(arguments.rounds):
                for pages in (0, PAGES):
                    phases.append(_phase(receiver, status, pages, arguments.seconds))
                    console.print(_line(phases[-1]))
    without, with_pages = ([each for each in phases if each.pages == n] for n in (0, PAGES))
    ratio = _median(with_pages, "p99") / _median(without, "p99")
    cores, lost = _median(with_pages, "cores"), sum(each.lost for each in phases)
    console.print(
        f"medians: p99 {ratio:.2f} times that without pages (1.3 at most), web page {cores:.1%} "
        f"of a core (15 % at most), {lost} frames lost (none)"
    )
    return int(ratio > 1.3 or cores > 0.15 or lost > 0)


def _median(phases: list[Phase], field: str) -> float:
    return float(statistics.median(getattr(each, field) for each in phases))


def _line(phase: Phase) -> str:
    return (
        f"{phase.pages} pages: p50 {phase.p50:6.2f} ms, p99 {phase.p99:6.2f} ms, "
        f"{phase.frames:7,} frames, {phase.lost} lost; web page {phase.cores:6.1%} of a core, "
        f"{phase.mb:5.1f} MB, {phase.told / 1e3:7.1f} kB/s"
    )


def _phase(receiver: Pipe, web: WebStatus, pages: int, seconds: float) -> Phase:
    if web.pid is None:
        raise RuntimeError("the page has ended already")
    with _looking(web.url, pages) as told:
        time.sleep(_SETTLE_S[pages])
        receiver.send("begin")
        used, read, began = cpu_s(web.pid), sum(told), time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - began
        cores = (cpu_s(web.pid) - used) / lasted
        read = sum(told) - read
        mb = resident_mb(web.pid)
        receiver.send("end")
        ages, frames, lost = receiver.recv()
    p50, p99 = (percentile(ages, percent) / 1e6 for percent in (50, 99))
    return Phase(pages, p50, p99, frames, lost, cores, mb, read / lasted)


# -------------------------------------------------------------------------------------- the broker


@contextmanager
def _serving(runtime: Runtime, has_signals: bool) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CONFIG_HOME"] = directory
        path = Path(directory) / "bench.toml"
        (path.parent / "bench.dbc").write_text(_database())
        database = 'database = "bench.dbc"' if has_signals else ""
        path.write_text(_CONFIG.format(database=database))
        command = EntryPoint.COMMAND.command("serve", "-c", str(path))
        broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while not runtime.place.broker.path.exists():
                time.sleep(0.05)
            yield
        finally:
            broker.terminate()
            broker.wait()


def _database() -> str:
    """A DBC with all messages."""
    lines = ['VERSION ""', "BU_: Bench"]
    for number in range(IDENTIFIERS):
        lines.append(f"BO_ {number} Message{number}: 8 Bench")
        lines += [
            f' SG_ Signal{at} : {8 * at}|8@1+ (0.5,-10) [0|0] "V" Bench' for at in range(_SIGNALS)
        ]
    return "\n".join(lines) + "\n"


def _web(runtime: Runtime) -> WebStatus:
    """The page, once it serves."""
    while True:
        context = SharedContext()
        nothing = control.Params()
        status = discovery.ask(context, runtime, "status", nothing, BrokerStatus, 10.0)
        context.close()
        if status.web is not None and status.web.url:
            return status.web
        time.sleep(0.05)


# --------------------------------------------------------------------------------------- the pages


@contextmanager
def _looking(url: str, pages: int) -> Iterator[list[int]]:
    """Open pages; counts the bytes that each is told."""
    lower_priority()  # this thread, and those that it starts
    told = [0] * pages
    host = urlsplit(url).netloc
    cookie = cookie_of(load_or_create(tokens_path()).by_role[Role.OBSERVE])
    name = f"canbroker-{host.rpartition(':')[2]}"
    with ExitStack() as stack:
        threads = []
        for index in range(pages):
            page = stack.enter_context(
                connect(
                    f"ws://{host}/socket",
                    origin=Origin(f"http://{host}"),
                    additional_headers={"Cookie": f"{name}={cookie}"},
                    compression=None,
                    max_size=None,
                    proxy=None,
                )
            )
            page.send(json.dumps({"ask": "watch", "channel": "can0"}))
            page.send(json.dumps({"ask": "show", "keys": _SEEN}))
            if index == 0:
                page.send(json.dumps({"ask": "trace", "on": True}))
            thread = threading.Thread(target=_read, args=(page, told, index))
            thread.start()
            threads.append(thread)
        yield told
    for thread in threads:
        thread.join()


def _read(page: ClientConnection, told: list[int], index: int) -> None:
    for message in page:
        told[index] += len(message)


# ------------------------------------------------------------------------------------- the traffic


@contextmanager
def _traffic() -> Iterator[Pipe]:
    """A sender, and a receiver; the pipe of the latter."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    ours, theirs = context.Pipe()
    receiver = context.Process(target=_receive, args=(theirs,))
    sender = context.Process(target=_send, args=(stop,))
    receiver.start()
    ours.recv()
    sender.start()
    ours.recv()  # the first frames
    try:
        yield ours
    finally:
        stop.set()
        sender.join()
        ours.send(None)
        receiver.join()


def _send(stop: Any) -> None:
    """[another process] Sends at the full rate, each frame with the time."""
    with Bus("can0", can_filters=[{"can_id": 0x7FF, "can_mask": 0x7FF}]) as bus:
        for at in paced(1 << 40, FULL_RATE / _AT_ONCE):
            if stop.is_set():
                return
            first = at * _AT_ONCE
            now = time.monotonic_ns().to_bytes(8, "big")
            bus.send_batch(
                [
                    Message(arbitration_id=n % IDENTIFIERS, data=now, is_extended_id=False)
                    for n in range(first, first + _AT_ONCE)
                ]
            )


def _receive(pipe: Pipe) -> None:
    """[another process] From "begin" to "end": ages in ns, numbers of frames and of lost ones."""
    with Bus("can0") as bus:
        pipe.send("ready")
        ages: list[int] = []
        lost = 0
        measures = False
        bus.recv()
        pipe.send("frames")
        while True:
            if pipe.poll():
                said = pipe.recv()
                if said is None:
                    return
                if said == "end":
                    pipe.send((ages, len(ages), bus.stats.lost - lost))
                measures = said == "begin"
                ages, lost = [], bus.stats.lost
            for message in bus.recv_batch(1000, timeout=0.1):
                if measures:
                    ages.append(time.monotonic_ns() - int.from_bytes(message.data, "big"))


if __name__ == "__main__":
    sys.exit(main())
