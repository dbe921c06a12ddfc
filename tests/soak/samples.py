"""What processes use, over time, and whether that is flat."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import psutil

#: What the second half of a soak may add to the memory of a process: lists of runs at receivers,
#: and what an allocator takes before it gives back.
GROWTH_MB: Final = 4.0
#: Seconds that a process may take to start, in which it grows, on a busy machine.
_STARTS_S: Final = 3.0
#: Bytes of a megabyte.
_MB: Final = 1e6


class Sample(NamedTuple):
    """Of one kind of process, at ``at`` (monotonic seconds); memory in MB a process.

    ``age``: seconds that the youngest of them has run for.
    """

    at: float
    kind: str
    processes: int
    rss: float
    pss: float
    descriptors: int
    threads: int
    age: float = _STARTS_S


def take(kinds: Mapping[str, Iterable[int]]) -> list[Sample]:
    """One sample for each kind that has a process now; those that have just ended do not count."""
    samples = []
    for kind, pids in kinds.items():
        used = []
        age = math.inf
        for pid in pids:
            try:
                process = psutil.Process(pid)
                memory = process.memory_full_info()
                age = min(age, time.time() - process.create_time())
                used.append((memory.rss, memory.pss, process.num_fds(), process.num_threads()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # killed by a fault, or about to be gone
        if used:
            rss, pss, descriptors, threads = (sum(column) for column in zip(*used, strict=True))
            count = len(used)
            memory_mb = rss / count / _MB, pss / count / _MB
            samples.append(
                Sample(time.monotonic(), kind, count, *memory_mb, descriptors, threads, age)
            )
    return samples


def growth(samples: Iterable[Sample]) -> dict[str, float]:
    """MB that a process of each kind has grown by in the second half, from the slope of its PSS.

    One that a fault has ended is replaced; how its successor grows while it starts says nothing.
    """
    of_kind: dict[str, list[Sample]] = defaultdict(list)
    for sample in (sample for sample in samples if sample.age >= _STARTS_S):
        of_kind[sample.kind].append(sample)
    grown = {}
    for kind, all_of_it in of_kind.items():
        half = all_of_it[len(all_of_it) // 2 :]
        times = [sample.at for sample in half]
        if len(half) < 3:
            continue  # too short a soak to tell
        slope = statistics.linear_regression(times, [sample.pss for sample in half]).slope
        grown[kind] = slope * (times[-1] - times[0])
    return grown


def line(sample: Sample) -> str:
    """One line of the table."""
    return (
        f"{sample.kind:12}{sample.processes:4}{sample.rss:9.1f}{sample.pss:9.1f}"
        f"{sample.descriptors:6}{sample.threads:6}"
    )


#: Above :func:`line`.
HEADING: Final = f"{'kind':12}{'n':>4}{'RSS MB':>9}{'PSS MB':>9}{'fds':>6}{'thr':>6}"
