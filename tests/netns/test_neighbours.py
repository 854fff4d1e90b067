"""What the kernel's tables say of a next hop: alive, sought, given up, or a dead gateway."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from preflight.lab.network import Lab
from preflight.lab.topology import LabNode

NODES = [
    LabNode(name, (f"10.77.{number}.11", f"fd77:{number}::11"))
    for number, name in enumerate(("a", "b", "cut-off"), start=1)
]
DEAD_GATEWAYS = ("10.77.3.98", "fd77:3::98")

# Prints whether the address is sought in vain: before anything was sent to it, then when a
# first datagram has been sent, then when the error has come back or 4 s have passed.
LOOK = """
import select, socket, sys
from preflight.net.errqueue import enable_error_queue
from preflight.net.neighbours import seeks_in_vain
address = sys.argv[1]
print(seeks_in_vain(address))
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    enable_error_queue(sock, sock.family)
    sock.connect((address, 7000))
    sock.send(b"x")
    print(seeks_in_vain(address))
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.poll(4000)
    print(seeks_in_vain(address))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(NODES) as lab:
        for gateway in DEAD_GATEWAYS:
            lab.run("cut-off", ["ip", "route", "replace", "default", "via", gateway])
        yield lab


def look(lab: Lab, where: str, address: str) -> list[str]:
    looking = lab.popen(where, [sys.executable, "-c", LOOK, address], stdout=subprocess.PIPE)
    return looking.communicate(timeout=20)[0].split()


@pytest.mark.parametrize("address", ["10.77.1.99", "fd77:1::99"])
def test_nobody_has_the_address(lab: Lab, address: str) -> None:
    assert look(lab, "a", address) == ["False", "True", "True"]


@pytest.mark.parametrize("address", ["10.77.2.11", "fd77:2::11"])
def test_nobody_has_the_gateways_address(lab: Lab, address: str) -> None:
    assert look(lab, "cut-off", address) == ["False", "True", "True"]


@pytest.mark.parametrize("address", ["10.77.2.11", "fd77:2::11"])
def test_the_gateway_is_there(lab: Lab, address: str) -> None:
    assert look(lab, "a", address)[-1] == "False"
