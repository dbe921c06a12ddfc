"""``python -m tests.fuzz``: every target gets its share of the time; an exit code says if it held.

Each runs in a process of its own under atheris, which follows the coverage of canbroker's code.
What a run finds stays in a directory for temporary files; ``--keep`` adds what covers more to
``tests/fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

#: Longer inputs say nothing new, but for memory.
_MAX_BYTES: Final = {
    "ring": 2048,
    "toml": 512,
    "ini": 512,
    "blf": 2048,
    "asc": 2048,
    "trc": 2048,
    "pcapng": 2048,
    "sqlite": 8300,
}
_USUAL_MAX: Final = 1024

_CORPUS: Final = Path(__file__).parent / "corpus"
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERED: Final = re.compile(r"cov: (\d+) ft: (\d+)")


class Outcome(NamedTuple):
    """``output``: the traceback, if it did not hold."""

    held: bool
    executed: int
    covered: int
    output: str


def main() -> int:
    """Fuzzes; returns 1 if a target did not hold."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds, for all together")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what covers more")
    parser.add_argument("targets", nargs="*", help="default: all")
    arguments = parser.parse_args()
    names = arguments.targets or _names()
    faults = Path(tempfile.mkdtemp(prefix="canbroker-fuzz-"))
    share = max(1, round(arguments.duration / len(names)))
    held = True
    print(f"{'target':18}{'executions':>12}{'coverage':>10}")
    for name in names:
        outcome = _fuzz(name, share, faults, arguments.keep)
        held &= outcome.held
        verdict = "" if outcome.held else f"   FAILED, input in {faults}"
        print(f"{name:18}{outcome.executed:12}{outcome.covered:10}{verdict}", flush=True)
        if not outcome.held:
            print(outcome.output[-4000:])
    if held:
        shutil.rmtree(faults)
    return 0 if held else 1


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - the targets' processes import it late

    return list(TARGETS)


def _fuzz(name: str, seconds: int, faults: Path, keep: bool) -> Outcome:
    """Fuzzes one target, from its corpus on."""
    corpus = _CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="canbroker-corpus-") as found:
        limits = f"-max_len={_MAX_BYTES.get(name, _USUAL_MAX)}", "-timeout=10", "-rss_limit_mb=2048"
        prefix = f"-artifact_prefix={faults}/{name}-"
        options = *limits, prefix, f"-max_total_time={seconds}", "-print_final_stats=1"
        process = _atheris(name, *options, found, str(corpus))
        if keep:
            _atheris(name, *limits, "-merge=1", "-set_cover_merge=1", str(corpus), found)
    executed = _EXECUTED.findall(process.stderr)
    covered = _COVERED.findall(process.stderr)
    return Outcome(
        process.returncode == 0,
        int(executed[-1]) if executed else 0,
        int(covered[-1][0]) if covered else 0,
        process.stdout,
    )


def _atheris(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.worker", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


if __name__ == "__main__":
    sys.exit(main())
