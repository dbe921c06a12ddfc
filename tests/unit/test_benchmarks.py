"""What the benchmark makes of what it has measured; it is never asked how fast anything is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks import modes, targets
from benchmarks.figures import LOST, US, Figures, Key, Verdict, target_rows
from benchmarks.paced import Due, recorded, steady, uniform
from benchmarks.usage import cpu_s

LOG = """\
(1.000000) can0 123#0011223344556677
(1.500000) can0 18FEF100#01
(1.600000) can0 123#R
(2.000000) can0 124##0000102030405060708090A0B
"""


def key(what: str, who: str = US, load: str = targets.ONE, unit: str = "frames/s") -> Key:
    return Key(load, who, what, unit)


def figures_of(**whos: list[float]) -> Figures:
    """Rates of several rounds; names of peers with _ for a space."""
    figures = Figures()
    for who, values in whos.items():
        for value in values:
            figures.add({key("rate", who.replace("_", " ")): value})
    return figures


def test_a_ratio_is_taken_within_each_round() -> None:
    figures = figures_of(canbroker=[10, 30, 8], other=[5, 10, 1])
    (_, other) = figures.rows()
    assert other == [targets.ONE, "other", "rate", "5", "frames/s", "1", "10", "3 x"]


def test_losses_are_shown_where_there_are_some() -> None:
    figures = figures_of(canbroker=[10])
    figures.add({key(LOST, unit="%"): 0.0, key(LOST, "other", unit="%"): 2.5})
    assert [row[1:4] for row in figures.rows() if row[2] == LOST] == [["other", LOST, "2.5"]]


def test_figures_that_compare_stand_together() -> None:
    figures = Figures()
    for who in (US, "other"):
        figures.add({key("rate", who): 1.0, key("CPU", who): 1.0})
    figures.add({key("rate", load="another load"): 1.0})
    assert [row[0:3] for row in figures.rows()] == [
        [targets.ONE, US, "rate"],
        [targets.ONE, "other", "rate"],
        [targets.ONE, US, "CPU"],
        [targets.ONE, "other", "CPU"],
        ["another load", US, "rate"],
    ]


@pytest.mark.parametrize(
    ("at_least", "values", "outcome"),
    [
        (True, [90, 100, 500], "met"),
        (True, [90, 99, 500], "missed"),
        (False, [90, 100, 500], "met"),
        (False, [90, 101, 500], "missed"),
        (False, [], "not measured"),
    ],
)
def test_a_target_is_judged_by_the_median(
    at_least: bool, values: list[float], outcome: str
) -> None:
    verdict = Verdict("a target", "rate", "frames/s", 100, at_least, values)
    assert verdict.outcome == outcome
    assert target_rows([verdict])[0][-1] == outcome


def test_one_loss_in_any_round_misses_the_target() -> None:
    figures = Figures()
    for lost in (0.0, 0.1, 0.0):
        figures.add({key(LOST, unit="%"): lost})
    outcomes = [item.outcome for item in targets.verdicts(figures) if item.what == LOST]
    assert outcomes == ["missed", "not measured", "not measured"]


def test_remote_clients_are_compared_with_local_ones_within_each_round() -> None:
    figures = figures_of(canbroker=[10, 100, 20])
    for rate in (9, 81, 10):
        figures.add({key("rate", targets.REMOTE): rate})
    (verdict,) = [item for item in targets.verdicts(figures) if item.what.endswith("/ local")][1:]
    assert verdict.values == [0.9, 0.81, 0.5]
    assert verdict.outcome == "met"


def test_what_was_not_measured_is_no_target_that_was_met() -> None:
    assert {verdict.outcome for verdict in targets.verdicts(Figures())} == {"not measured"}


def test_portable_mode_is_compared_with_native_mode_within_each_round() -> None:
    figures = Figures()
    for rate, p50, lost in ((10, 4, 0), (20, 5, 0.5), (30, 6, 0)):
        figures.add({key("rate"): 20.0, key("rate", f"{US}{modes.PORTABLE}"): float(rate)})
        figures.add({key("p50", load="paced"): 2.0, key("rate", load="paced"): 1.0})
        portable = f"{US}, send{modes.PORTABLE}"
        figures.add({key("p50", f"{US}, send", "paced"): 2.0})
        figures.add({key("p50", portable, "paced"): float(p50)})
        figures.add({key("rate", portable, "paced"): 1.0, key(LOST, portable, "paced"): lost})
    found = [
        (each.target, each.what, each.values, each.outcome) for each in modes.verdicts(figures)
    ]
    assert found == [
        (f"{targets.ONE}: {US}, portable", "rate / native", [0.5, 1, 1.5], "met"),
        # At a pace, the rate is that of the load.
        (f"paced: {US}, send, portable", "p50 / native", [2, 2.5, 3], "missed"),
        (f"paced: {US}, send, portable", LOST, [0.5], "missed"),
    ]


def test_the_report_has_every_value(tmp_path: Path) -> None:
    figures = figures_of(canbroker=[1.5, 2.5])
    figures.write(tmp_path, {"cores": 2}, targets.verdicts(figures))
    content = json.loads((tmp_path / "latest.json").read_text())
    assert content["figures"] == [{**key("rate")._asdict(), "values": [1.5, 2.5]}]
    assert "| 1 receiver, 8 bytes | canbroker | rate | 2 |" in (tmp_path / "latest.md").read_text()


def test_a_recorded_trace_keeps_times_identifiers_and_lengths(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    log.write_text(LOG)
    # Without the remote frame, and the CAN FD one.
    assert recorded(log, 10) == [Due(0.0, 0x123, 8, False), Due(0.05, 0x18FEF100, 1, True)]


@pytest.mark.parametrize(("rate", "frames"), [(500, 1_000), (2_000, 4_000), (8_000, 4_000)])
def test_a_pace_is_kept_for_two_seconds_or_4000_frames(rate: int, frames: int) -> None:
    assert len(steady(rate)) == frames
    assert len(steady(rate, 0.5)) == frames // 2


def test_a_uniform_schedule_has_the_rate() -> None:
    assert [due.at for due in uniform(4, 1.0)] == [0.0, 0.25, 0.5, 0.75]


def test_processor_time_is_that_of_the_process() -> None:
    before = time.process_time()
    used = cpu_s(os.getpid())
    assert before <= used <= time.process_time()
