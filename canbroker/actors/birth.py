"""What the broker gives an actor's process: its specification, a lifeline, and a way to report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from canbroker.actors.lifelines import BrokerLifeline, InheritedLifeline, StandardInputLifeline
from canbroker.system.descriptors import never_wait
from canbroker.system.portable import PORTABLE

#: Where reports share the standard output: they come after this. What comes before was printed
#: while Python started, and is for the log.
REPORTS_BEGIN: Final = b"\0reports\n"

_CHUNK: Final = 65_536


class Birth(NamedTuple):
    """``specification`` is JSON. ``reporting`` is a descriptor to write to, which never waits where
    the system can do that."""

    name: str
    specification: bytes
    lifeline: BrokerLifeline
    reporting: int


def born(arguments: Sequence[str]) -> Birth:
    """Takes what the broker has passed on. Nothing of it is inherited by a driver's children.

    :param arguments: a name for the log; the process id of the broker. On Linux also the
        descriptors of specification, lifeline and reports; elsewhere they are the standard input,
        which begins with the specification in a line, and the standard output.
    """
    name, *numbers = arguments
    birth = _by_standard_streams if PORTABLE else _by_inheritance
    return birth(name, *map(int, numbers))


def _by_inheritance(name: str, broker: int, *inherited: int) -> Birth:
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    specification, lifeline, report = inherited
    ends = InheritedLifeline(lifeline, broker)
    never_wait(report)
    with open(specification, "rb") as file:  # noqa: PTH123 - a descriptor
        return Birth(name, file.read(), ends, report)


def _by_standard_streams(name: str, broker: int) -> Birth:
    lifeline, reporting = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # for drivers that print
    os.close(nothing)
    os.write(reporting, REPORTS_BEGIN)
    never_wait(reporting)
    specification = b""
    while b"\n" not in specification:
        chunk = os.read(lifeline, _CHUNK)
        if not chunk:
            raise EOFError("the broker has ended before it told what to do")
        specification += chunk
    specification, _, words = specification.partition(b"\n")
    return Birth(name, specification, StandardInputLifeline(lifeline, words, broker), reporting)
