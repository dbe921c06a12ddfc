"""The adapter, its traffic, its faults and its ledger; no I/O."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

from canbroker.logs.candump import parse_frame
from canbroker.model.frame import ERROR, EXTENDED, Frame
from canbroker.simulator.firmware import create
from canbroker.simulator.options import SimulatorOptions
from canbroker.simulator.replay import Replay
from canbroker.system.clock import SECOND

#: What the adapter's own output buffer holds, in bytes; lines that come when it is full are lost.
OUTPUT_LIMIT = 4096
#: Of USB at full speed, in bytes.
_PACKET = 64
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
        self._device = create(options)
        self._late: deque[tuple[int, bytes]] = deque()  # on the way to the host, and until when
        self._late_bytes = 0
        self._replay = Replay(frames, options.rate, options.loop)
        self._may_start = not options.paused
        self._reported_end = self._replay.finished
        self._drop = self._garble = 0.0
        self._hangs_until_ns = 0
        self._counts = Counter[str]()
        self._frames = Counter[str]()

    # ------------------------------------------------------------------------------- the host

    def receive(self, data: bytes, now_ns: int, since_ns: int | None = None) -> None:
        """Bytes that the host wrote after ``since_ns``, or now. An adapter that hangs loses them.

        An adapter takes them when they come. This one may have had something else to do, or no
        processor, and finds more at a time than a host had written at a time: it takes them as if
        they had come evenly.
        """
        if self.hangs(now_ns):
            return
        since_ns = now_ns if since_ns is None else since_ns
        count = -(-len(data) // _PACKET)
        for index in range(count):
            piece = data[index * _PACKET : (index + 1) * _PACKET]
            at_ns = since_ns + (now_ns - since_ns) * (index + 1) // count
            self._say(self._device.receive(piece, at_ns), now_ns)

    @property
    def boots(self) -> bool:
        """Whether :meth:`port_opened` does anything."""
        return self._device.boot_ns > 0

    def port_opened(self, now_ns: int) -> None:
        """A program has opened the port; a board that this resets forgets what it has to say."""
        self.output.clear()
        self._late.clear()
        self._late_bytes = 0
        self._device.port_opened(now_ns)

    def step(self, now_ns: int) -> None:
        """Puts the frames that are due into ``output``; reports the end of the replay."""
        self._say(self._device.poll(now_ns), now_ns)
        while self._late and self._late[0][0] <= now_ns:
            _, data = self._late.popleft()
            self._late_bytes -= len(data)
            self.output += data
        if self.plugged and self._may_start and self._device.receives:
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
        times = [self._device.due_ns(), self._late[0][0] if self._late else None]
        if not self._held_back(now_ns):
            times.append(self._replay.due_ns())
        return min((time for time in times if time is not None), default=None)

    def hangs(self, now_ns: int) -> bool:
        return now_ns < self._hangs_until_ns

    def unplug(self) -> None:
        """The adapter loses its power, and with it its state."""
        self.plugged = False
        self.output.clear()
        self._late.clear()
        self._late_bytes = 0
        self._device.power_off()

    @property
    def _unread(self) -> int:
        return len(self.output) + self._late_bytes

    def _say(self, data: bytes, now_ns: int) -> None:
        if not self._options.answer_delay:
            self.output += data
        elif data:
            self._late.append((now_ns + int(self._options.answer_delay * SECOND), data))
            self._late_bytes += len(data)

    def _held_back(self, now_ns: int) -> bool:
        """Whether a replay as fast as the host reads waits for the host."""
        full = self._unread >= OUTPUT_LIMIT
        return not self._options.rate and (full or self.hangs(now_ns))

    def _from_bus(self, frame: Frame, now_ns: int) -> None:
        outcome = self._outcome(frame, now_ns)
        self._counts[outcome] += 1
        if outcome not in ("replayed", "garbled"):
            return
        line = bytearray(self._device.line(frame, now_ns))
        if outcome == "replayed":
            digits = 8 if frame.flags & EXTENDED else 3
            self._frames[f"{frame.arbitration_id:0{digits}X}"] += 1
        elif line:  # nothing yet from an adapter that waits until it is polled
            # No letter of the protocol: there is no checksum by which a host could tell
            # another hexadecimal digit.
            line[self.random.randrange(len(line) - 1)] = self.random.randrange(0x80, 0x100)
        self._say(bytes(line), now_ns)

    def _outcome(self, frame: Frame, now_ns: int) -> str:
        if frame.flags & ERROR or not self._device.carries(frame):
            return "skipped"
        if self.hangs(now_ns) or self.random.random() < self._drop:
            return "dropped"
        if self._unread >= OUTPUT_LIMIT:
            return "overruns"
        return "garbled" if self.random.random() < self._garble else "replayed"

    # ---------------------------------------------------------------------------- the operator

    def command(self, text: str, now_ns: int) -> None:
        """Does what a line of the operator says.

        :raises ValueError: the message says what is wrong with it and lists the commands.
        """
        name, _, argument = text.strip().partition(" ")
        self._say(self._device.poll(now_ns), now_ns)
        commands: dict[str, Callable[[], None]] = {
            "start": self._start,
            "stats": lambda: self.report("stats"),
            "accepted": lambda: self._print(
                event="accepted", frames=[*self._device.ledger.accepted]
            ),
            "inject": lambda: self._inject(argument, now_ns),
            "receive": lambda: self._receive(argument, now_ns),
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
        ledger = self._device.ledger
        self._print(
            event=event,
            firmware=self._options.firmware,
            state=self._device.state.value,
            opened=self._device.opened,
            accepted=ledger.accepted_count,
            refused=ledger.refused_count,
            lost=ledger.lost_count,
            refused_commands=ledger.refused_commands,
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

    def _inject(self, line: str, now_ns: int) -> None:
        self._say(line.encode() + b"\r", now_ns)
        self._counts["injected"] += 1

    def _receive(self, text: str, now_ns: int) -> None:
        frame = parse_frame(text)
        if not self._device.receives or not self._device.carries(frame):
            self._counts["skipped"] += 1
            return
        self._say(self._device.line(frame, now_ns), now_ns)
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
        self._check_acknowledges("bel")
        self._device.refuse_next = count

    def _mute(self, count: int) -> None:
        self._check_acknowledges("noack")
        self._device.mute_next = count

    def _check_acknowledges(self, command: str) -> None:
        if not self._device.acknowledges:
            raise ValueError(f"{command}: {self._options.firmware} answers no transmit anyway")

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
