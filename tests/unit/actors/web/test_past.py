"""Places in a channel's past."""

from __future__ import annotations

import pytest

from canbroker.actors.web.past import Place
from canbroker.model.frame import EchoFrame


@pytest.mark.parametrize(
    ("place", "left"),
    [
        (Place(30, 0), "abcd"),  # the whole of that time
        (Place(30, 1), "abc"),  # one of them is shown
        (Place(30, 2), "ab"),
        (Place(30, 9), "abcd"),  # more than there are: others have taken their place
        (Place(25, 0), "ab"),
        (Place(99, 0), "abcdef"),
        (Place(5, 0), ""),
        (Place(50, 1), "abcde"),
        (Place(45, 1), "abcd"),  # behind it is one of an earlier time
    ],
)
def test_the_frames_before_a_place(place: Place, left: str) -> None:
    times = {"a": 10, "b": 20, "c": 30, "d": 30, "e": 45, "f": 40}
    if place.time_ns == 50:
        times["f"] = 50
    frames = [EchoFrame(time, ord(name), 0, b"") for name, time in times.items()]
    assert "".join(chr(frame.arbitration_id) for frame in place.cut(frames)) == left
