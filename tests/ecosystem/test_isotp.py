"""can-isotp: two stacks exchange 4 KiB over one channel, and a third process sees every frame."""

from __future__ import annotations

import random
from typing import Final

import canbroker
from canbroker.transport.runtime import Runtime
from tests.support.processes import Program

SIZE: Final = 4096  # which needs the long form of a first frame
BLOCK: Final = 8
#: A first frame of that form has 2 bytes, a consecutive one 7. One flow control follows the first
#: frame and each full block, unless that was all.
CONSECUTIVE: Final = -(-(SIZE - 2) // 7)
FLOW_CONTROLS: Final = 1 + (CONSECUTIVE - 1) // BLOCK
ONE: Final = 0x7E0
OTHER: Final = 0x7E8
END: Final = 0x7FF

_STACK: Final = """
    import isotp
    address = isotp.Address(txid=arguments["tx"], rxid=arguments["rx"])
    parameters = {"max_frame_size": 8192, "blocksize": arguments["block"]}
    # The machine may be busy elsewhere.
    parameters |= {"rx_flowcontrol_timeout": 20_000, "rx_consecutive_frame_timeout": 20_000}

    def exchange(stack):
        stack.start()
        say("ready")
        stack.send(bytes.fromhex(hear()))
        say(bytes(stack.recv(block=True, timeout=30)).hex())
        hear()  # it may still have to answer
        stack.stop()
    """

#: For the plugin's bus there is a stack that takes it whole.
_PLUGIN: Final = """
    import can
    with can.Bus("bench", interface="canbroker", adapter="virtual", bitrate=500_000) as bus:
        exchange(isotp.CanStack(bus, address=address, params=parameters))
    """

#: One that takes two functions serves any bus.
_OURS: Final = """
    import canbroker as can

    def receive(timeout):
        message = bus.recv(timeout)
        return message and isotp.CanMessage(
            arbitration_id=message.arbitration_id, data=message.data
        )

    def send(message):
        bus.send(
            can.Message(
                arbitration_id=message.arbitration_id, data=message.data, is_extended_id=False
            )
        )

    with can.Bus("bench", "virtual", bitrate=500_000) as bus:
        exchange(isotp.TransportLayer(receive, send, address, params=parameters))
    """

_WATCHER: Final = """
    with Bus("bench", "virtual", bitrate=500_000) as bus:
        say("ready")
        seen = []
        for message in bus:
            if message.arbitration_id == arguments["end"]:
                break
            seen.append([message.arbitration_id, message.data.hex()])
        say([seen, bus.stats.lost])
    """


def test_both_ways_at_once_while_a_third_process_watches(runtime: Runtime) -> None:
    payloads = {ONE: random.randbytes(SIZE).hex(), OTHER: random.randbytes(SIZE).hex()}
    with (
        Program(_WATCHER, end=END) as watcher,
        Program(_STACK + _PLUGIN, tx=ONE, rx=OTHER, block=BLOCK) as one,
        Program(_STACK + _OURS, tx=OTHER, rx=ONE, block=BLOCK) as other,
    ):
        assert [program.said() for program in (watcher, one, other)] == ["ready"] * 3
        one.tell(payloads[ONE])
        other.tell(payloads[OTHER])
        assert other.said() == payloads[ONE]
        assert one.said() == payloads[OTHER]
        for stack in (one, other):
            stack.tell("both are done")
            assert stack.end() == 0
        with canbroker.Bus("bench", "virtual") as bus:
            bus.send(canbroker.Message(arbitration_id=END, is_extended_id=False))
            seen, lost = watcher.said()
        assert lost == 0
        for sender, receiver in ((ONE, OTHER), (OTHER, ONE)):
            sent = [bytes.fromhex(data) for identifier, data in seen if identifier == sender]
            answers = [bytes.fromhex(data) for identifier, data in seen if identifier == receiver]
            assert _reassembled(sent).hex() == payloads[sender]
            assert sum(data[0] >> 4 == 3 for data in answers) == FLOW_CONTROLS
        assert len(seen) == 2 * (1 + CONSECUTIVE + FLOW_CONTROLS)


def _reassembled(frames: list[bytes]) -> bytes:
    """The payload of one direction; fails unless each of its frames is there, in order."""
    first, *following = [frame for frame in frames if frame[0] >> 4 != 3]
    assert first[:6] == b"\x10\x00" + SIZE.to_bytes(4, "big")
    numbers = [frame[0] for frame in following]
    assert numbers == [0x20 | (number + 1) % 16 for number in range(CONSECUTIVE)]
    return (first[6:] + b"".join(frame[1:] for frame in following))[:SIZE]
