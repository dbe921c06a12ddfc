"""A serial CAN adapter without hardware, on a pseudo-terminal (POSIX).

:mod:`.firmware` what each kind of adapter does, :mod:`.replay` traffic from a log,
:mod:`.simulation` both with their faults and the ledger, none of them doing I/O; :mod:`.runner`
the process.
"""

from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.runner import run

__all__ = ["SimulatorOptions", "run"]
