"""Modules that these tests import and that their source distributions leave out.

Written from how the tests use them, and put where they are looked for. can-isotp: the interface
to test with, and a logger. udsoncan: a base class of all test cases.
"""

from __future__ import annotations

import logging
import sys
import types
import unittest
from typing import Any

_BUS = {"interface": "virtual", "channel": "vcan0", "bitrate": 500_000}


def _interface_config(key: str | None = None) -> Any:
    return dict(_BUS) if key is None else _BUS[key]


def _configure_transport_layer(layer: Any) -> None:
    """Logs nothing: a test that fails has its traceback."""


def install() -> None:
    """Makes the modules importable, whatever the project."""
    _module("tools", get_test_interface_config=_interface_config)
    _module(
        "unittest_logging",
        logger=logging.getLogger("tests of can-isotp"),
        configure_transport_layer=_configure_transport_layer,
    )
    _module("UdsTest", UdsTest=unittest.TestCase)


def _module(name: str, **content: Any) -> None:
    module = types.ModuleType(f"test.{name}")
    vars(module).update(content)
    sys.modules[module.__name__] = module
