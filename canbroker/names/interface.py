"""python-can's name for where ``Bus`` and ``detect_available_configs`` are."""

from canbroker.client import Bus
from canbroker.configuration.detection import detect_available_configs

__all__ = ["Bus", "detect_available_configs"]
