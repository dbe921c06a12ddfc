"""python-can's name for where messages are."""

from canbroker.model.message import Message

__all__ = ["Message"]
