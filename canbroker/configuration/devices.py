"""Paths of devices, as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Interfaces whose channels are names, not paths of devices.
_WITHOUT_DEVICE: Final = frozenset({"socketcan", "virtual"})


def resolved(interface: str | None, channel: str, directory: Path | None = None) -> str:
    """``channel``, as an absolute path if it is a device's relative path.

    The process that opens it has another working directory.

    :param interface: ``None`` if the channel is the name of a broker's channel.
    :param directory: what the path is relative to; ``None`` means the working directory.
    """
    if interface is None or interface in _WITHOUT_DEVICE or not channel or "://" in channel:
        return channel
    path = Path(channel)
    if path.is_absolute() or "\0" in channel:
        return channel
    try:
        whole = (directory or Path.cwd()) / path
        # Drivers of python-can may call a channel anything, so for them it must be a device.
        is_path = whole.is_char_device() or (interface == "slcan" and "/" in channel)
    except OSError:  # the working directory was removed, or the name is too long for a path
        return channel
    return str(whole) if is_path else channel
