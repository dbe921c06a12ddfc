"""The reference of ``canbroker status --json`` has every field that it prints, and no other."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
import pytest

from canbroker import Bus, Message
from canbroker.cli.tables import ProcessUse
from canbroker.transport.runtime import Runtime
from canbroker.wire import databases, recordings, stream, tasks
from canbroker.wire.status import (
    BrokerStatus,
    ChannelStatus,
    ClientStatus,
    GatewayStatus,
    LeaseStatus,
    NatsStatus,
    SchedulerStatus,
    WebStatus,
)
from tests.docs.pages import text_of
from tests.support.commands import run

#: What the command adds to the broker's answer.
ADDED: Final = {"silent", "processes", "tasks", "round_trip_s", "clock_offset_s"}

STRUCTS: Final[dict[str, type[msgspec.Struct]]] = {
    "The broker": BrokerStatus,
    "Channels": ChannelStatus,
    "State": stream.StateEvent,
    "Clients": ClientStatus,
    "Databases": databases.DatabaseInfo,
    "Scheduler": SchedulerStatus,
    "Tasks": tasks.TaskStatus,
    "Recordings": recordings.RecordingStatus,
    "Leases": LeaseStatus,
    "Gateway": GatewayStatus,
    "Web page": WebStatus,
    "NATS bridge": NatsStatus,
    "Processes": ProcessUse,
}


def documented() -> dict[str, set[str]]:
    """The fields of each section."""
    _, *sections = text_of("reference/status.md").split("\n## ")
    return {
        section.splitlines()[0]: {
            name
            for line in section.splitlines()
            if line.startswith("| `")
            for name in re.findall(r"`(\w+)`", line.split("|")[1])
        }
        for section in sections
    }


def test_every_section_is_that_of_a_struct() -> None:
    assert documented().keys() == STRUCTS.keys()


@pytest.mark.parametrize("section", STRUCTS)
def test_a_section_has_the_fields_of_its_struct(section: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(STRUCTS[section])}
    added = ADDED if section == "The broker" else set()
    assert documented()[section] == fields | added


def test_what_is_printed_is_what_is_documented(runtime: Runtime) -> None:
    with Bus("x", "virtual", bitrate=500_000) as bus:
        task = bus.send_periodic(Message(arbitration_id=1, is_extended_id=False), 1)
        printed = run("status", "--json", "--tasks")
        task.stop()
    assert printed.returncode == 0
    status: dict[str, Any] = json.loads(printed.stdout)
    fields = documented()
    assert status.keys() == fields["The broker"] - {"round_trip_s", "clock_offset_s"}
    (channel,) = status["channels"]
    assert channel.keys() == fields["Channels"]
    # The tag says which event of a channel a state is.
    assert channel["state"].keys() == fields["State"] | {"event"}
    for each in channel["clients"]:
        assert each.keys() == fields["Clients"]
    assert status["tasks"][0].keys() == fields["Tasks"]
    assert status["processes"][0].keys() == fields["Processes"]
    assert status["scheduler"].keys() == fields["Scheduler"]
