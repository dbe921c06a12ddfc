"""Serial adapters that speak the Lawicel protocol, and its CANable 2.0 dialect for CAN FD.

:mod:`.options` what a user says, :mod:`.port` the serial line, :mod:`.handshake` from a line to a
configured adapter, :mod:`.window` transmits and their acknowledgements, :mod:`.timestamps` the
adapter's clock, :mod:`.backend` all of it together.
"""

from canbroker.backends.slcan.backend import SlcanBackend, open_adapter
from canbroker.backends.slcan.options import SlcanOptions

__all__ = ["OPTIONS", "SlcanBackend", "SlcanOptions", "open"]

OPTIONS = SlcanOptions
open = open_adapter  # noqa: A001 - the name that every backend module has
