"""The log of a broker in the background."""

from __future__ import annotations

from canbroker import Bus
from canbroker.broker import log_file
from canbroker.transport.runtime import Runtime
from tests.support.brokers import wait_until


def test_it_begins_anew_when_it_is_too_large(runtime: Runtime) -> None:
    with Bus("log", "virtual"):
        with runtime.log_path.open("ab") as log:
            log.write(b"much\n" * (log_file.MAX_BYTES // 5 + 1))
        old = log_file.LogFile(runtime.log_path).old
        wait_until(
            lambda: old.exists() and runtime.log_path.stat().st_size == 0, "it is begun anew"
        )
        assert old.stat().st_size > log_file.MAX_BYTES
    # What it logs at its end is in the new one.
