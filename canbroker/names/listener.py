"""python-can's name for where the listeners are."""

from canbroker.bus.listening.listeners import (
    AsyncBufferedReader,
    BufferedReader,
    Listener,
    RedirectReader,
)

__all__ = ["AsyncBufferedReader", "BufferedReader", "Listener", "RedirectReader"]
