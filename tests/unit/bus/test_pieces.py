"""When a client that catches up pauses."""

from __future__ import annotations

from canbroker.bus.pieces import PIECE_NS, Pieces


def test_a_pause_comes_after_a_piece_of_work_without_a_wait() -> None:
    now = 0
    slept: list[float] = []
    pieces = Pieces(lambda: now, slept.append)
    now = PIECE_NS - 1
    pieces.pause()
    assert not slept
    pieces.begin()  # it has waited
    now += PIECE_NS - 1
    pieces.pause()
    assert not slept
    now += 1
    pieces.pause()
    pieces.pause()  # the next piece has just begun
    assert len(slept) == 1
    now += PIECE_NS
    pieces.pause()
    assert len(slept) == 2
