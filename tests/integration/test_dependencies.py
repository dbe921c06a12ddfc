"""Which packages a client loads: those that its work needs (docs/design/dependencies.md)."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions

from canbroker import Bus
from canbroker.transport.runtime import Runtime

#: What msgspec itself imports where it is installed.
OPTIONAL = {"typing_extensions"}

#: What only clients of a broker on another host need. hashlib loads OpenSSL, which takes longer
#: than all of canbroker.
REMOTE = {
    "canbroker.bus.remote",
    "canbroker.keys",
    "canbroker.model.key",
    "canbroker.transport.curve",
    "canbroker.transport.diagnosis",
    "canbroker.transport.remote_links",
    "hashlib",
    "hmac",
    "tomlkit",
}

#: What few clients use is loaded with its first use.
LATER = {
    "asyncio",
    "canbroker.bus.awaiting",
    "canbroker.bus.lease",
    "canbroker.bus.periodic.timer",
    "canbroker.bus.signals",
    "canbroker.bus.watching",
    "canbroker.model.protection",
    "heapq",
    "socket",
    "subprocess",
}

PROGRAM = """
import sys
before = set(sys.modules)
import threading
from canbroker import Bus, Counter, Message, Notifier

with Bus("shared", "virtual", receive_own_messages=True) as bus:
    message = Message(arbitration_id=0x123, data=bytes(8), is_extended_id=False)
    bus.set_filters([{"can_id": 0x123, "can_mask": 0x7FF}])
    bus.send(message)
    bus.send_batch([message])
    bus.flush(5)
    assert len([bus.recv(5), bus.recv(5)]) == 2
    heard = threading.Event()
    task = bus.send_periodic(message, 0.01, counter=Counter(byte=7))
    notifier = Notifier(bus, [lambda message: heard.set()])
    assert heard.wait(5)
    notifier.stop()
    task.stop()
    assert bus.stats.sent >= 2
    assert bus.state.name == "ACTIVE"
print(*sys.modules.keys() - before)
"""


def test_a_client_of_a_running_broker_loads_pyzmq_and_msgspec_alone(runtime: Runtime) -> None:
    with Bus("shared", "virtual"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    modules = set(done.stdout.split())
    assert not modules & REMOTE
    roots = {module.partition(".")[0] for module in modules}
    assert not roots & {"psutil", "serial", "click", "rich", "msgpack", "can"}
    homes = packages_distributions()
    packages = {package for root in roots for package in homes.get(root, [])}
    assert packages - OPTIONAL - {"canbroker"} == {"msgspec", "pyzmq"}


def test_a_client_loads_what_few_need_with_its_first_use(runtime: Runtime) -> None:
    program = """
import sys
from canbroker import Bus, Message
with Bus("shared", "virtual") as bus:
    bus.send(Message(arbitration_id=1), 5)
    bus.recv(0)
print(*sys.modules)
"""
    with Bus("shared", "virtual"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
        )
    loaded = set(done.stdout.split())
    assert "canbroker.client" in loaded
    assert not loaded & LATER


def test_actors_do_not_load_what_few_of_them_need() -> None:
    """They all know the options of the web page and of the bridge to NATS."""
    program = "import sys, canbroker.actors.specs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert {"asyncio", "ssl", "nats", "starlette"}.isdisjoint(done.stdout.split())
