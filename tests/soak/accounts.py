"""Whether a receiver's account and a sender's agree."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from tests.support.ledger import Received, Sent

#: Wrong numbers that a finding shows.
_SHOWN: Final = 5


def faults_of(receiver: Received, senders: Mapping[int, Sent]) -> list[str]:
    """What does not agree, in words; nothing, if all does.

    Every frame that was taken by the driver has arrived, is counted as lost, or is of one of the
    stretches that a replaced actor or an absent adapter explains; none arrives twice, out of order,
    or that was refused.
    """
    found: list[str] = []
    missing = stretches = confirmed = came = 0
    for identifier, sender in senders.items():
        numbers = receiver.numbers.get(identifier, [])
        arrived = set(numbers)
        back = [pair for pair in pairwise(numbers) if pair[0] >= pair[1]]
        if back:
            found.append(f"{identifier:X}: out of order, or twice: {back[:_SHOWN]} of {len(back)}")
        strange = arrived - (sender.sent | sender.handed | sender.unknown)
        if strange:
            found.append(f"{identifier:X}: never sent: {sorted(strange)[:_SHOWN]}")
        confirmed += sender.confirmed
        came += len(arrived)
        absent = [number not in arrived for number in sorted(sender.sent)]
        missing += sum(absent)
        stretches += sum(now and not before for before, now in pairwise([False, *absent]))
    if not receiver.restarts and came + receiver.lost < confirmed:
        found.append(f"{confirmed} sent, {came} received, {receiver.lost} told")
    if (
        receiver.restarts
        and missing > receiver.lost
        and stretches > receiver.lost + receiver.restarts
    ):
        found.append(f"{missing} missing in {stretches} stretches, {receiver.lost} told")
    return found


def faults_of_sender(sender: Sent) -> list[str]:
    """What a sender's own account does not explain: each frame that was handed over is sent or
    failed. One whose ``send`` raised at once may be counted as failed, too."""
    offered = len(sender.sent | sender.handed | sender.unknown)
    told = sender.confirmed + sender.failed
    if offered <= told <= offered + len(sender.refused):
        return []
    return [f"{offered} handed over, {len(sender.refused)} refused, {told} told of"]
