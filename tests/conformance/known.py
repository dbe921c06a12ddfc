"""Tests of python-can that cannot pass, and why. Each of them must fail: the list is kept short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_OTHER_INTERFACES: Final = (
    "test/back2back_test.py::BasicTestEtas",
    "test/back2back_test.py::BasicTestSocketCan",
    "test/back2back_test.py::BasicTestUdpMulticastBus",
    "test/back2back_test.py::SocketCanBroadcastChannel",
    "test/serial_test.py::SimpleSerialTest",  # with a mock of pyserial
    "test/test_detect_available_configs.py::TestDetectAvailableConfigs::test_socketcan_on_ci",
    # Fails where the package gs_usb is installed: python-can's class ends its shutdown early.
    "test/test_interface.py::test_interface_calls_parent_shutdown[gs_usb]",
)

#: By way: tests of what is not replaced, and could only pass; not run.
NOT_OURS: Final[Mapping[str, tuple[str, ...]]] = {
    "plugin": _OTHER_INTERFACES,
    "names": (
        *_OTHER_INTERFACES,
        "test/test_interface.py",  # the class of each of python-can's interfaces
    ),
}

_TIMESTAMP: Final = "a timestamp above 49 days is an error only where it travels as 32 bits of ms"
_QUEUE: Final = "looks into the queue of python-can's virtual bus (bus.queue)"
_THREAD: Final = "waits for the thread of python-can's task (task.thread)"
_TASKS: Final = "looks at python-can's list of tasks (bus._periodic_tasks)"

_SERIAL: Final[Mapping[str, str]] = {
    f"serial_test.py::SimpleSerialLoopTest::{name}": reason
    for name, reason in {
        "test_rx_tx_max_timestamp_error": _TIMESTAMP,
        "test_when_no_fileno": "expects no descriptor, or a mock whose attributes can be set",
    }.items()
}

_CYCLIC: Final = "simplecyclic_test.py::SimpleCyclicSendTaskTest"

KNOWN: Final[Mapping[str, Mapping[str, str]]] = {
    "plugin": {
        **_SERIAL,
        f"{_CYCLIC}::test_cycle_time": _QUEUE,
        f"{_CYCLIC}::test_managed_tasks": _THREAD,
        f"{_CYCLIC}::test_removing_bus_tasks": _THREAD,
        f"{_CYCLIC}::test_restart_perodic_tasks": _QUEUE,
        f"{_CYCLIC}::test_stopping_perodic_tasks": _THREAD,
    },
    "names": {
        **_SERIAL,
        f"{_CYCLIC}::test_cycle_time": _QUEUE,
        f"{_CYCLIC}::test_managed_tasks": _TASKS,
        f"{_CYCLIC}::test_removing_bus_tasks": _TASKS,
        f"{_CYCLIC}::test_restart_perodic_tasks": _QUEUE,
        f"{_CYCLIC}::test_stopping_perodic_tasks": _TASKS,
        f"{_CYCLIC}::test_thread_based_cyclic_send_task": "takes python-can's private lock",
        "test_bus.py::test_bus_ignore_config": "waits for a call of python-can's util.load_config",
        "test_cyclic_socketcan.py::CyclicSocketCan::test_stop_all_periodic_tasks_and_remove_task": (
            _TASKS
        ),
        "test_message_filtering.py::TestMessageFiltering": (
            "asks python-can's private method (bus._matches_filters)"
        ),
    },
}
