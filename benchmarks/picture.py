"""Pictures of distributions; needs matplotlib, of the ``bench`` extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_COLOURS: Final = {"python-can": "#c1440e", "canbroker": "#1f6f8b"}
_OTHER: Final = "#7aa974"

#: What is later than so many of a thousand is where the difference is: a logarithmic axis.
_SHARES: Final = [0.5, *(1 - 10 ** (-n / 20) for n in range(7, 81))]


def draw_lateness(runs: Sequence[tuple[int, str, Sequence[float]]], path: Path) -> None:
    """Draws how many frames were later than what; one panel for each number of tasks.

    ``runs``: tasks, system, sorted lateness in ms.
    """
    counts = sorted({tasks for tasks, _, _ in runs})
    figure, axes = plt.subplots(
        1, len(counts), figsize=(3.4 * len(counts), 3.8), sharey=True, squeeze=False
    )
    for panel, tasks in zip(axes[0], counts, strict=True):
        for count, system, late in runs:
            if count != tasks or not late:
                continue
            shares = [share for share in _SHARES if (1 - share) * len(late) >= 1]
            values = [max(1e-3, late[int(share * len(late))]) for share in shares]
            colour = _COLOURS.get(system, _OTHER)
            panel.plot(values, [1 - share for share in shares], label=system, color=colour)
        panel.set_title(f"{tasks:,} task{'s' if tasks > 1 else ''} at 10 ms", fontsize=10)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(1e-3, 3e3)
        panel.set_xlabel("|gap - 10 ms| [ms]")
        panel.grid(visible=True, which="major", alpha=0.3)
        panel.legend(fontsize=7, loc="lower left")
    axes[0][0].set_ylabel("share of frames that are later")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
