"""python-can's name for where the listeners are."""

from canbroker.listeners import AsyncBufferedReader, BufferedReader, Listener, RedirectReader

__all__ = ["AsyncBufferedReader", "BufferedReader", "Listener", "RedirectReader"]
