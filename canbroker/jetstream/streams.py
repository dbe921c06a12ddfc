"""The streams: one keeps the frames, the other one the last value of each state and signal.

Which stream has a subject is asked of the server, so they may have other names, or be one per site.
No stream may have the subjects of commands: the server would answer requests instead of the bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from canbroker.jetstream import subjects

if TYPE_CHECKING:
    from nats.js.api import StreamConfig

_DAY_S: Final = 86_400


class Layout(NamedTuple):
    """A stream as a bridge makes it if there is none.

    ``last``: only the last message of each subject is kept.
    """

    name: str
    subjects: tuple[str, ...]
    last: bool
    max_bytes: int
    max_age_s: float

    def config(self, replicas: int = 1) -> StreamConfig:
        """For nats-py's ``add_stream``. When it is full, the oldest messages go."""
        from nats.js import api  # noqa: PLC0415 - of an extra

        return api.StreamConfig(
            name=self.name,
            subjects=[*self.subjects],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.OLD,
            max_msgs_per_subject=1 if self.last else -1,
            max_bytes=self.max_bytes,
            max_age=self.max_age_s,
            num_replicas=replicas,
            duplicate_window=120.0,
            allow_direct=True,
        )


#: A full bus of 8,000 frames/s is about 20 GB a day.
FRAMES: Final = Layout("CAN_FRAMES", (subjects.frames(),), False, 10 << 30, 7 * _DAY_S)
VALUES: Final = Layout("CAN_VALUES", (subjects.state(), subjects.signals()), True, 1 << 30, 0)
