"""The adapter, its traffic, its faults and its ledger; no I/O."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable

from canbroker.clock import SECOND
from canbroker.frame import ERROR, EXTENDED, Frame
from canbroker.simulator.device import Device, State
from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.replay import Replay

#: What the adapter's own output buffer holds, in bytes; lines that come when it is full are lost.
OUTPUT_LIMIT = 4096
#: Between two looks at what the host wants.
_FRAMES_A_STEP = 1000


class Simulation:
    """Steps through time on request. ``output`` is what the host may read now; times monotonic.

    The ledger: every frame of the log is replayed, dropped, garbled, overrun or skipped.
    """

    def __init__(self, options: SimulatorOptions, frames: Iterable[Frame]) -> None:
        self.output = bytearray()
        self.reports: list[str] = []  # lines to print
        self.plugged = True
        self.quitting = False
        self.split = False
        self.random = random.Random(options.seed)  # noqa: S311 - faults, not secrets
        self._options = options
        self._device = Device(options)
        self._replay = Replay(frames, options.rate, options.loop)
        self._may_start = not options.paused
        self._reported_end = self._replay.finished
        self._drop = self._garble = 0.0
        self._hangs_until_ns = 0
        self._counts = Counter[str]()
        self._frames = Counter[str]()

    # ------------------------------------------------------------------------------- the host

    def receive(self, data: bytes, now_ns: int) -> None:
        """Bytes from the host; lost on an adapter that hangs."""
        if not self.hangs(now_ns):
            self.output += self._device.receive(data, now_ns)

    def step(self, now_ns: int) -> None:
        """Puts the frames that are due into ``output``; reports the end of the replay."""
        if self.plugged and self._may_start and self._device.state is not State.CLOSED:
            self._replay.resume(now_ns)
        else:
            self._replay.pause(now_ns)
        for _ in range(_FRAMES_A_STEP):
            if self._held_back(now_ns) or (frame := self._replay.take(now_ns)) is None:
                break
            self._from_bus(frame, now_ns)
        if self._replay.finished and not self._reported_end:
            self._reported_end = True
            self.report("replay_done")

    def due_ns(self, now_ns: int) -> int | None:
        """When :meth:`step` has something to do again; ``None`` if time alone brings nothing."""
        if self.hangs(now_ns):
            return self._hangs_until_ns
        return None if self._held_back(now_ns) else self._replay.due_ns()

    def hangs(self, now_ns: int) -> bool:
        return now_ns < self._hangs_until_ns

    def unplug(self) -> None:
        """The adapter loses its power, and with it its state."""
        self.plugged = False
        self.output.clear()
        self._device.state = State.CLOSED

    def _held_back(self, now_ns: int) -> bool:
        """Whether a replay as fast as the host reads waits for the host."""
        full = len(self.output) >= OUTPUT_LIMIT
        return not self._options.rate and (full or self.hangs(now_ns))

    def _from_bus(self, frame: Frame, now_ns: int) -> None:
        outcome = self._outcome(frame, now_ns)
        self._counts[outcome] += 1
        if outcome == "replayed":
            digits = 8 if frame.flags & EXTENDED else 3
            self._frames[f"{frame.arbitration_id:0{digits}X}"] += 1
            self.output += self._device.line(frame, now_ns)
        elif outcome == "garbled":
            line = bytearray(self._device.line(frame, now_ns))
            # No letter of the protocol: there is no checksum by which a host could tell
            # another hexadecimal digit.
            line[self.random.randrange(len(line) - 1)] = self.random.randrange(0x80, 0x100)
            self.output += line

    def _outcome(self, frame: Frame, now_ns: int) -> str:
        if frame.flags & ERROR or not self._device.carries(frame):
            return "skipped"
        if self.hangs(now_ns) or self.random.random() < self._drop:
            return "dropped"
        if len(self.output) >= OUTPUT_LIMIT:
            return "overruns"
        return "garbled" if self.random.random() < self._garble else "replayed"

    # ---------------------------------------------------------------------------- the operator

    def command(self, text: str, now_ns: int) -> None:
        """Does what a line of the operator says.

        :raises ValueError: says what is wrong with it, and which commands there are.
        """
        name, _, argument = text.strip().partition(" ")
        commands: dict[str, Callable[[], None]] = {
            "start": self._start,
            "stats": lambda: self.report("stats"),
            "accepted": lambda: self._print(event="accepted", frames=[*self._device.accepted]),
            "inject": lambda: self._inject(argument),
            "drop": lambda: self._set_drop(_probability(argument)),
            "garble": lambda: self._set_garble(_probability(argument)),
            "split": lambda: self._set_split(argument),
            "bel": lambda: self._refuse(_count(argument)),
            "noack": lambda: self._mute(_count(argument)),
            "hang": lambda: self._hang(now_ns + int(_seconds(argument) * SECOND)),
            "unplug": self.unplug,
            "replug": self._replug,
            "quit": self._quit,
        }
        if name not in commands:
            raise ValueError(f"unknown command {name!r}; there are: {', '.join(commands)}")
        commands[name]()

    def report(self, event: str) -> None:
        """Adds the ledger to ``reports``."""
        names = ("replayed", "dropped", "garbled", "overruns", "skipped", "injected")
        self._print(
            event=event,
            state=self._device.state.value,
            opened=self._device.opened,
            accepted=self._device.accepted_count,
            refused=self._device.refused_count,
            refused_commands=self._device.refused_commands,
            **{name: self._counts[name] for name in names},
            frames=dict(sorted(self._frames.items())),
        )

    def plugged_in(self, path: str) -> None:
        """Reports the path of an adapter that is back."""
        self._print(event="replugged", path=path)

    def _print(self, **fields: object) -> None:
        self.reports.append(json.dumps(fields))

    def _start(self) -> None:
        self._may_start = True

    def _inject(self, line: str) -> None:
        self.output += line.encode() + b"\r"
        self._counts["injected"] += 1

    def _set_drop(self, probability: float) -> None:
        self._drop = probability

    def _set_garble(self, probability: float) -> None:
        self._garble = probability

    def _set_split(self, argument: str) -> None:
        if argument not in ("on", "off"):
            raise ValueError(f"split takes on or off, got {argument!r}")
        self.split = argument == "on"

    def _refuse(self, count: int) -> None:
        self._device.refuse_next = count

    def _mute(self, count: int) -> None:
        self._device.mute_next = count

    def _hang(self, until_ns: int) -> None:
        self._hangs_until_ns = until_ns

    def _replug(self) -> None:
        self.plugged = True

    def _quit(self) -> None:
        self.quitting = True


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError(f"a probability is 0 to 1, got {text!r}")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1e6:
        raise ValueError(f"a time is 0 or more seconds, got {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"a count is a whole number, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
