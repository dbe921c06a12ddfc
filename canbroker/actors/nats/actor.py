"""The bridge actor: one process that publishes its broker's channels to NATS JetStream."""

from __future__ import annotations

import os

from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.specs import NatsSpec
from canbroker.jetstream.server import check_installed


class NatsActor:
    """Once made, it can run; it connects then, and waits for a server that is not there.

    :raises CanInitializationError: a package is missing.
    """

    def __init__(self, spec: NatsSpec) -> None:
        os.environ["CANBROKER_AUTOSTART"] = "0"  # we have a broker
        check_installed("the NATS bridge")
        from canbroker.actors.nats.bridge import Bridge  # noqa: PLC0415 - of an extra

        self._bridge = Bridge(spec.options, spec.address)

    def __repr__(self) -> str:
        return f"<NatsActor {self._bridge!r}>"

    def run(self, lifelines: Lifelines, beat: Beat) -> None:
        """Publishes until one of ``lifelines`` becomes readable."""
        self._bridge.run(lifelines.descriptors, beat)
