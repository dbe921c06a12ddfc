"""Paths of devices, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Interfaces whose channels are names, not paths of devices.
_WITHOUT_DEVICE: Final = frozenset({"socketcan", "virtual"})


def resolved(interface: str | None, channel: str, directory: Path | None = None) -> str:
    """``channel`` with the directory that it is relative to, if it is a device's relative path.

    The process that opens it has a working directory of its own.

    :param interface: ``None``: the channel is one of the broker's, by its name.
    :param directory: ``None``: the working directory.
    """
    if interface is None or interface in _WITHOUT_DEVICE or not channel or "://" in channel:
        return channel
    path = Path(channel)
    if path.is_absolute() or "\0" in channel:
        return channel
    try:
        whole = (directory or Path.cwd()) / path
        # A driver of python-can's may call a channel anything, so there the device decides.
        is_path = whole.is_char_device() or (interface == "slcan" and "/" in channel)
    except OSError:  # the working directory was removed, or the name is too long for a path
        return channel
    return str(whole) if is_path else channel
