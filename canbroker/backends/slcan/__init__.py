"""Serial adapters that speak the Lawicel protocol, in the dialects of their firmware.

:mod:`.options` are the parameters, :mod:`.dialects` the firmware families, :mod:`.codec` the lines,
:mod:`.commands` the commands, :mod:`.port` the serial line. :mod:`.handshake` configures and opens
an adapter, :mod:`.checkup` checks that it stays open, :mod:`.window` and :mod:`.backlog` track its
transmits, :mod:`.timestamps` converts its clock. :mod:`.backend` puts all of it together.
"""

from canbroker.backends.slcan.backend import SlcanBackend, open_adapter
from canbroker.backends.slcan.options import SlcanOptions

__all__ = ["OPTIONS", "SlcanBackend", "SlcanOptions", "open"]

OPTIONS = SlcanOptions
open = open_adapter  # noqa: A001 - the name that every backend module has
