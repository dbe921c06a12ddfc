"""Serial adapters that speak the Lawicel protocol, in the dialects of their firmware.

:mod:`.options` what a user says, :mod:`.dialects` what firmware families do, :mod:`.commands` what
is written to them, :mod:`.port` the serial line, :mod:`.handshake` from a line to a configured
adapter, :mod:`.checkup` whether it stays so, :mod:`.window` and :mod:`.backlog` transmits on their
way, :mod:`.timestamps` the adapter's clock, :mod:`.backend` all of it together.
"""

from canbroker.backends.slcan.backend import SlcanBackend, open_adapter
from canbroker.backends.slcan.options import SlcanOptions

__all__ = ["OPTIONS", "SlcanBackend", "SlcanOptions", "open"]

OPTIONS = SlcanOptions
open = open_adapter  # noqa: A001 - the name that every backend module has
