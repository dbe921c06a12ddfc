"""``python -m benchmarks.remote``: clients of one broker, on its host and behind its gateway.

Every round measures everything once, local and remote clients in turns, so that what else the
machine does meanwhile falls on both. Remote ones are encrypted, over the loopback interface.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console

from benchmarks import paced, standing, streams, targets
from benchmarks.figures import US, Figures, target_table
from benchmarks.peers import CLASSIC_BYTES, Peer, free_port, ours
from canbroker import Bus, CanError
from canbroker.demo.broker import BrokerView
from canbroker.keys.broker_key import load_broker_key
from canbroker.system.entry_points import EntryPoint
from canbroker.transport.curve import public_of
from canbroker.transport.runtime import Runtime

_CHANNEL: Final = "bench"
_START_S: Final = 20.0

#: Frames of a stream to one receiver; and of a pace, a second.
_FRAMES: Final = 60_000
_PACE: Final = 2_000

#: Receivers, and the load's name.
_STREAMS: Final = {1: targets.ONE, 4: targets.FOUR, 8: "8 receivers, 8 bytes"}


class Gateway(NamedTuple):
    """A broker that listens for remote clients, too: their address, and the gateway's process."""

    broker: BrokerView
    address: str
    pid: int


@contextmanager
def serving(place: Path) -> Iterator[Gateway]:
    """A broker of the default runtime directory, with keys of its own below ``place``."""
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="keys-", dir=place)
    _run("keys", "new")
    _run("keys", "authorize", "bench", _run("keys", "show", "--user").strip(), "--role", "admin")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    command = EntryPoint.COMMAND.command("serve", "--listen", endpoint)
    with (
        subprocess.Popen(command, stderr=subprocess.DEVNULL) as process,
        BrokerView(Runtime.at()) as broker,
    ):
        try:
            pid = _gateway_of(broker)
            yield Gateway(broker, f"{endpoint}?key={public_of(load_broker_key())}", pid)
        finally:
            process.terminate()


def peer(gateway: Gateway, channel: str) -> Peer:
    """Both ends behind the gateway, which is in the middle."""
    port = functools.partial(ours.BrokerPort, channel)
    return Peer(targets.REMOTE, gateway.address, port, port, gateway.pid)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the length of a round")
    options = parser.parse_args()
    console = Console(width=160)
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="cb-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    figures = Figures()
    try:
        with serving(place) as gateway, Bus(_CHANNEL, "virtual"):
            for number in range(options.rounds):
                _round(figures, gateway, options.scale, backwards=bool(number % 2))
                console.print(f"round {number + 1} of {options.rounds}")
    finally:
        shutil.rmtree(place)
    console.print(figures.table())
    judged = [each for each in targets.verdicts(figures) if each.what.endswith("/ local")]
    console.print(target_table(judged))
    console.print(f"{options.rounds} rounds in {time.monotonic() - began:.0f} s")
    return 0


def _round(figures: Figures, gateway: Gateway, scale: float, *, backwards: bool) -> None:
    actor = gateway.broker.channel().pid
    local = Peer(US, _CHANNEL, ours.BrokerPort, ours.BrokerPort, actor)
    peers = [local, peer(gateway, _CHANNEL)]
    schedule = paced.steady(_PACE, scale)
    for who in reversed(peers) if backwards else peers:
        figures.add(standing.warm_start(who))
        for receivers, load in _STREAMS.items():
            count = int(scale * _FRAMES / receivers**0.5)
            figures.add(streams.stream(load, who, count, receivers, CLASSIC_BYTES))
        figures.add(paced.latency(targets.PACED, who, schedule))


def _gateway_of(broker: BrokerView) -> int:
    """Its process, when it listens."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            gateway = broker.status().gateway
        except CanError:  # the broker is starting
            gateway = None
        if gateway is not None and gateway.pid is not None:
            return gateway.pid
        time.sleep(0.05)
    raise TimeoutError(f"no gateway listens after {_START_S:g} s")


def _run(*arguments: str) -> str:
    """What the command says."""
    command = EntryPoint.COMMAND.command(*arguments)
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
