"""Hosts that tests make are hosts: they reach each other alone, and their clocks differ."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.brokers import wait_until
from tests.support.namespaces import Host, booted_earlier, skip_without_time, two_hosts
from tests.support.processes import Program
from tests.support.systems import namespaces

LISTEN = """
import socket
family = socket.AF_INET6 if ":" in arguments["host"] else socket.AF_INET
with socket.create_server((arguments["host"], 0), family=family) as listening:
    say(listening.getsockname()[1])
    listening.settimeout(20)
    listening.accept()[0].sendall(b"here")
"""
REACH = """
import socket
try:
    socket.create_connection((arguments["host"], 9), 0.5).close()
except ConnectionRefusedError:
    say(True)
except OSError:
    say(False)
"""
CONNECT = """
import socket
with socket.create_connection((arguments["host"], arguments["port"]), 20) as connection:
    say(connection.recv(4).decode())
"""


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@namespaces
def test_two_hosts_reach_each_other_and_nothing_else(family: str) -> None:
    with two_hosts() as (near, far):
        host = getattr(far, family)
        with Program(LISTEN, *far.command, host=host) as listening:
            port = listening.said()
            with Program(CONNECT, *near.command, host=host, port=port) as connecting:
                assert connecting.said() == "here"
        with pytest.raises(OSError, match=r"(?i)unreach|timed out|refused"):
            socket.create_connection((host, port), 1).close()


@namespaces
def test_a_cable_that_is_cut_drops_everything() -> None:
    with two_hosts() as (near, far):
        assert is_reached(near, far)
        far.set_link("down")
        assert not is_reached(near, far)
        far.set_link("up")
        wait_until(lambda: is_reached(near, far), "the cable is back")


def is_reached(near: Host, far: Host) -> bool:
    """Whether the system at ``far`` answers: that nobody listens there."""
    with Program(REACH, *near.command, host=far.ipv4) as program:
        return bool(program.said())


@namespaces
def test_a_host_that_booted_earlier_has_a_clock_that_is_ahead() -> None:
    skip_without_time()
    before = time.monotonic()
    with Program("say(time.monotonic())", *booted_earlier(3600)) as program:
        ahead = program.said() - 3600
    assert before <= ahead <= time.monotonic()
