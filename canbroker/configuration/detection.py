"""Adapters that could be opened here, as far as the system and python-can's drivers know.

Nothing is opened, and nothing is imported before it is needed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from canbroker.configuration.bus_settings import PLUGIN
from canbroker.system.entry_points import EntryPoint

_logger = logging.getLogger(__name__)

#: USB (vendor, product) -> name of a serial adapter that speaks the Lawicel protocol.
SERIAL_ADAPTERS: Final[dict[tuple[int, int], str]] = {
    (0x0403, 0xFFA8): "Lawicel CANUSB",
    (0x04D8, 0x000A): "USBtin",  # Microchip's number for any serial device
    (0x16D0, 0x117E): "CANable",
    (0xAD50, 0x60C4): "CANtact, CANable",
}

#: The kernel's number for CAN network interfaces (ARPHRD_CAN of linux/if_arp.h).
_ARPHRD_CAN: Final = "280"

NETWORK: Final = Path("/sys/class/net")

#: For all of python-can's drivers together; loading their libraries takes most of it.
_PYTHON_CAN_S: Final = 5.0

#: Detected by us, not detectable, or not adapters but a broker's channels.
_OURS: Final = frozenset({"slcan", "socketcan", "virtual", PLUGIN})

#: They find every serial port, and multicast groups: only if somebody asks for them by name.
_ON_REQUEST: Final = frozenset({"serial", "udp_multicast"})


def detect_available_configs(
    interfaces: str | Iterable[str] | None = None,
) -> list[dict[str, Any]]:
    """The adapters that were found, each as arguments of ``Bus``: ``interface``, ``channel``, ….

    Takes up to 5 s if python-can is installed, because its drivers are asked in a process of
    their own. Adapters that are in use are found, too. A device that was found by its USB number
    may be something else.

    :param interfaces: the name of an interface, or several; others are not looked for.
    """
    wanted: set[str] | None = None
    if interfaces is not None:
        wanted = {interfaces} if isinstance(interfaces, str) else set(interfaces)
    found: list[dict[str, Any]] = []
    if wanted is None or "slcan" in wanted:
        found += _serial_adapters()
    if wanted is None or "socketcan" in wanted:
        found += _socketcan_interfaces()
    without = _OURS | _ON_REQUEST if wanted is None else _OURS
    if (wanted is None or wanted - without) and importlib.util.find_spec("can") is not None:
        found += _python_can(wanted, without)
    return found


def _serial_adapters() -> Iterator[dict[str, Any]]:
    from serial.tools import list_ports  # noqa: PLC0415 - most clients know their adapter

    for port in sorted(list_ports.comports()):
        if (port.vid, port.pid) in SERIAL_ADAPTERS:
            yield {"interface": "slcan", "channel": port.device}


def _socketcan_interfaces() -> Iterator[dict[str, Any]]:
    for kind in sorted(NETWORK.glob("*/type")):
        try:
            is_can = kind.read_text().strip() == _ARPHRD_CAN
        except OSError as error:  # the interface has just been removed
            _logger.debug("%s: %s", kind, error)
            continue
        if is_can:
            yield {"interface": "socketcan", "channel": kind.parent.name}


def _python_can(wanted: set[str] | None, without: frozenset[str]) -> list[dict[str, Any]]:
    """What python-can's drivers find, without those that do not answer in time."""
    import subprocess  # noqa: PLC0415 - most clients know their adapter

    command = EntryPoint.DETECTION.command(
        json.dumps({"wanted": wanted and sorted(wanted), "without": sorted(without)})
    )
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            output = process.communicate(timeout=_PYTHON_CAN_S)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            output = process.communicate()[0]  # what the others have answered before
            _logger.warning("not all of python-can's drivers answered in %g s", _PYTHON_CAN_S)
    lines = output.decode(errors="replace").splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return sorted(found, key=json.dumps)
