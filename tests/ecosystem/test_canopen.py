"""canopen: masters and nodes in several processes, on one serial adapter.

Several programs on one adapter is what its users ask for (canopen's issue 143); several networks
with one bus and one Notifier is the other way to share within a program (its issue 556).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from canbroker.transport.runtime import Runtime
from tests.support.brokers import status_of
from tests.support.processes import Program
from tests.support.simulated import Simulated

NODE: Final = 5
OTHER_NODE: Final = 6

#: What all nodes have, and a network in each style.
_COMMON: Final = """
    import canopen
    canopen.Network.NOTIFIER_CYCLE = 0.05  # seconds that the stop() of its Notifier may take
    from canopen.objectdictionary import ObjectDictionary, ODRecord, ODVariable, datatypes

    U8, U16, U32, I32, TEXT = (
        datatypes.UNSIGNED8, datatypes.UNSIGNED16, datatypes.UNSIGNED32,
        datatypes.INTEGER32, datatypes.VISIBLE_STRING,
    )

    def variable(name, kind, default, index, subindex=0):
        made = ODVariable(name, index, subindex)
        made.data_type, made.default = kind, default
        return made

    def dictionary(number):
        objects = ObjectDictionary()
        for made in (
            variable("Heartbeat", U16, 0, 0x1017),
            variable("Setpoint", U32, 7, 0x2000),
            variable("Serial number", TEXT, "none yet", 0x2001),
            variable("Speed", I32, 0, 0x2002),
        ):
            objects.add_object(made)
        for index, entries in (
            (0x1400, ((U32, 0x200 + number), (U8, 253))),
            (0x1600, ((U32, 0x20000020),)),
            (0x1800, ((U32, 0x180 + number), (U8, 253))),
            (0x1A00, ((U32, 0x20020020),)),
        ):
            record = ODRecord(hex(index), index)
            record.add_member(variable("Entries", U8, len(entries), index))
            for subindex, (kind, default) in enumerate(entries, 1):
                record.add_member(variable(f"Entry {subindex}", kind, default, index, subindex))
            objects.add_object(record)
        return objects

    def connected(style):
        if style == "plugin":
            return canopen.Network().connect(
                arguments["path"], interface="canbroker", adapter="slcan", bitrate=500_000
            )
        return canopen.Network(Bus(arguments["path"], "slcan", bitrate=500_000)).connect()

    def remote(network, number):
        node = network.add_node(number, dictionary(number))
        node.sdo.RESPONSE_TIMEOUT = 20  # the machine may be busy elsewhere
        return node

    def received_speed(node):
        assert node.tpdo[1].wait_for_reception(timeout=20) is not None
        return node.tpdo[1]["Speed"].raw
    """

_NODES: Final = """
    networks = [connected(arguments["style"]) for _ in arguments["numbers"]]
    nodes = [
        network.create_node(number, dictionary(number))
        for network, number in zip(networks, arguments["numbers"])
    ]
    for node in nodes:
        node.rpdo.read()
        node.tpdo.read()
        node.rpdo[1].add_callback(lambda mapping: say(mapping["Setpoint"].raw))
        node.nmt.state = "PRE-OPERATIONAL"
        node.tpdo[1].start(0.01)
    say("ready")
    while (speed := hear()) is not None:
        for node in nodes:
            node.tpdo[1]["Speed"].raw = speed + node.id
            node.tpdo[1].update()
    for network in networks:
        network.disconnect()
    """

_MASTER: Final = """
    network = connected(arguments["style"])
    node = remote(network, arguments["number"])
    node.tpdo.read()
    node.rpdo.read()

    node.sdo["Setpoint"].raw = 0x12345678
    serial = "segments " * 40
    node.sdo["Serial number"].raw = serial
    say([node.sdo["Setpoint"].raw, node.sdo["Serial number"].raw == serial])
    try:
        node.sdo[0x2003].raw = 1
    except KeyError as unknown:
        say("not in the dictionary")
    try:
        node.sdo.upload(0x2003, 0)
    except canopen.SdoAbortedError as aborted:
        say(aborted.code)

    node.nmt.state = "OPERATIONAL"
    node.sdo["Heartbeat"].raw = 20
    say(node.nmt.wait_for_heartbeat(20))

    while received_speed(node) != arguments["speed"]:
        continue
    node.rpdo[1]["Setpoint"].raw = 0xCAFE
    node.rpdo[1].transmit()
    say("sent")
    hear()
    network.disconnect()
    """

_RECORDER: Final = """
    network = connected(arguments["style"])
    node = remote(network, arguments["number"])
    node.tpdo.read(from_od=True)  # a node has one SDO channel, which is the master's
    say("ready")
    while received_speed(node) != arguments["speed"]:
        continue
    say("seen")
    network.disconnect()
    """


#: A recipe: canopen itself would give each network a Notifier, and a bus has but one.
_MASTERS: Final = """
    from concurrent.futures import ThreadPoolExecutor
    bus = Bus(arguments["path"], "slcan", bitrate=500_000)
    notifier = canbroker.Notifier(bus, [])

    def master(number):
        network = canopen.Network(bus)
        network.notifier = notifier
        for listener in network.listeners:
            notifier.add_listener(listener)
        node = remote(network, number)
        node.tpdo.read()
        node.sdo["Serial number"].raw = f"the serial number of node {number}"
        while received_speed(node) != arguments["speed"] + number:
            continue
        network.check()  # raises what the notifier has met
        return node.sdo["Serial number"].raw

    with ThreadPoolExecutor() as threads:
        say(list(threads.map(master, arguments["numbers"])))
    notifier.stop()
    bus.shutdown()
    """


@pytest.fixture
def adapter() -> Iterator[Simulated]:
    with Simulated() as simulated:
        yield simulated


@pytest.mark.parametrize(("one", "other"), [("plugin", "ours"), ("ours", "plugin")])
def test_a_master_a_recorder_and_a_node(
    runtime: Runtime, adapter: Simulated, one: str, other: str
) -> None:
    where = {"path": adapter.path, "number": NODE, "speed": -1000 + NODE}
    with Program(_COMMON + _NODES, path=adapter.path, style=one, numbers=[NODE]) as node:
        assert node.said() == "ready"
        with (
            Program(_COMMON + _RECORDER, style=one, **where) as recorder,
            Program(_COMMON + _MASTER, style=other, **where) as master,
        ):
            assert recorder.said() == "ready"
            assert master.said() == [0x12345678, True]
            assert master.said() == "not in the dictionary"
            assert master.said() == 0x06020000  # no such object
            assert master.said() == "OPERATIONAL"
            node.tell(-1000)
            assert recorder.said() == "seen"
            assert master.said() == "sent"
            assert node.said() == 0xCAFE
            [channel] = status_of(runtime).channels
            assert channel.interface == "slcan"
            master.tell(None)
            node.tell(None)
            assert [program.end() for program in (recorder, master, node)] == [0, 0, 0]
    assert adapter.stats()["opened"] == 1


def test_networks_that_share_a_bus_and_a_notifier(runtime: Runtime, adapter: Simulated) -> None:
    where = {"path": adapter.path, "numbers": [NODE, OTHER_NODE]}
    with Program(_COMMON + _NODES, style="plugin", **where) as nodes:
        assert nodes.said() == "ready"
        with Program(_COMMON + _MASTERS, speed=500, **where) as program:
            nodes.tell(500)
            assert program.said() == [
                f"the serial number of node {number}" for number in (NODE, OTHER_NODE)
            ]
            assert program.end() == 0
        nodes.tell(None)
        assert nodes.end() == 0
