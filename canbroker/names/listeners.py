"""Where the listeners were in version 0.1."""

from canbroker.bus.listening.listeners import (
    AsyncBufferedReader,
    BufferedReader,
    Listener,
    Printer,
    RedirectReader,
)

__all__ = ["AsyncBufferedReader", "BufferedReader", "Listener", "Printer", "RedirectReader"]
