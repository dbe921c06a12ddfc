"""A child that inherits the descriptors by which the broker talks to it."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import Final

import msgspec

from canbroker.actors.specs import ActorSpec
from canbroker.broker.process_child import ProcessChild
from canbroker.system.descriptors import never_wait, pipe
from canbroker.system.entry_points import EntryPoint
from canbroker.system.shared_memory import unnamed_file

_CHUNK: Final = 65_536

_STDERR: Final = 2


class InheritingChild(ProcessChild):
    """A child that inherits the descriptors of its specification, lifeline and reports."""

    def __init__(self, name: str, spec: ActorSpec) -> None:
        """As :func:`canbroker.broker.child.start`."""
        ring = getattr(spec, "ring_descriptor", None)
        with ExitStack() as ours, ExitStack() as childs:
            specification = unnamed_file(msgspec.json.encode(spec))
            childs.callback(os.close, specification)
            lifeline, our_lifeline = pipe()
            childs.callback(os.close, lifeline)
            ours.callback(os.close, our_lifeline)
            self._reports, reports = pipe()
            childs.callback(os.close, reports)
            ours.callback(os.close, self._reports)
            never_wait(self._reports)
            descriptors = (specification, lifeline, reports)
            process = subprocess.Popen(
                EntryPoint.ACTOR.command(name, *map(str, (os.getpid(), *descriptors))),
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                pass_fds=descriptors if ring is None else (*descriptors, ring),
            )
            ours.pop_all()
        super().__init__(process, our_lifeline)

    def fileno(self) -> int:
        return self._reports

    def close(self) -> None:
        self.release()
        os.close(self._reports)

    def _receive(self) -> bytes:
        return os.read(self._reports, _CHUNK)
