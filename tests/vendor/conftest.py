"""What the tests over doubles of vendors' libraries share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from canbroker.transport.runtime import Runtime
from tests.vendor.bus import VendorBus, vendor_bus


@pytest.fixture
def vendors() -> Iterator[VendorBus]:
    """A bus with PCAN's and Kvaser's adapters on it; before ``runtime``, whose broker uses it."""
    with vendor_bus() as bus:
        yield bus


@pytest.fixture
def broker(vendors: VendorBus, runtime: Runtime) -> Runtime:
    """A broker that ends before the bus does."""
    return runtime
