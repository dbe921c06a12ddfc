"""A process that was stopped while it wrote to an adapter does not blame the adapter for it."""

from __future__ import annotations

import os
import select
import signal
import time

from tests.support.processes import Program
from tests.support.simulated import Peer

#: Writes more than a line holds.
WRITER = """
from canbroker.backends.slcan.port import Port
port = Port(arguments["path"], 115200, False)
port.start(wakes=False)
say("writes")
port.write(b"x" * arguments["size"])
say("written")
port.close(b"")
"""


def test_a_write_that_was_stopped_goes_on() -> None:
    size = 200_000
    with Peer() as peer, Program(WRITER, path=peer.path, size=size) as writer:
        assert writer.said() == "writes"
        heard = len(os.read(peer.master, 1000))  # it is in the middle of it
        writer.signal(signal.SIGSTOP)
        time.sleep(1.2)  # longer than a line may take no data
        writer.signal(signal.SIGCONT)
        while heard < size and select.select([peer.master], [], [], 20)[0]:
            heard += len(os.read(peer.master, 65_536))
        assert heard == size
        assert writer.said() == "written"
        assert writer.end() == 0
