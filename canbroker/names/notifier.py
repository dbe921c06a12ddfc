"""python-can's name for where the notifier is."""

from canbroker.bus.listening.notifier import Notifier

__all__ = ["Notifier"]
