"""What connects the threads of a channel actor."""

from __future__ import annotations

from dataclasses import dataclass, field

from canbroker.actors.channel.messages import KeeperMessage, ReceiverMessage, SenderMessage
from canbroker.actors.channel.turn import Turn
from canbroker.actors.mailbox import Mailbox


@dataclass(frozen=True)
class Wiring:
    """The name and the epoch of a channel, and one mailbox for each thread of its actor.

    ``epoch`` identifies this life of the actor: the wall clock in ns when it started. ``turn``: the
    send thread and the recv thread work one at a time.
    """

    channel: str
    epoch: int
    turn: Turn = field(default_factory=Turn)
    keeper: Mailbox[KeeperMessage] = field(default_factory=Mailbox)
    sender: Mailbox[SenderMessage] = field(default_factory=Mailbox)
    receiver: Mailbox[ReceiverMessage] = field(default_factory=Mailbox)

    def close(self) -> None:
        """Closes the mailboxes; call it when both threads have ended."""
        for mailbox in (self.keeper, self.sender, self.receiver):
            mailbox.close()
