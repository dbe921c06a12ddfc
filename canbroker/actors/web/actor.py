"""The web actor: one process that serves the page of its broker."""

from __future__ import annotations

import os

from canbroker.actors.kinds import Beat
from canbroker.actors.lifelines import Lifelines
from canbroker.actors.specs import WebSpec
from canbroker.actors.web.installed import check_installed
from canbroker.system.priority import give_way


class WebActor:
    """Once made, it listens.

    :raises CanInitializationError: it cannot listen, or has no certificate or tokens.
    """

    def __init__(self, spec: WebSpec) -> None:
        os.environ["CANBROKER_AUTOSTART"] = "0"  # we have a broker
        check_installed()
        give_way()  # a page that is late disturbs nobody
        from canbroker.actors.web.service import WebService  # noqa: PLC0415 - of an extra

        self._service = WebService(spec.options, spec.address)

    def __repr__(self) -> str:
        return f"<WebActor {self._service.url}>"

    def run(self, lifelines: Lifelines, beat: Beat) -> None:
        """Serves until one of ``lifelines`` becomes readable."""
        self._service.run(lifelines.descriptors, beat)
