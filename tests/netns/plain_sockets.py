"""What plain sockets see in a lab, so that the lab is proven without the program it is for.

python plain_sockets.py answer NAME PROTOCOL:ADDRESS:PORT...   until it is ended
python plain_sockets.py ask PROTOCOL ADDRESS PORT [BYTES]      prints one JSON object
"""

import errno
import json
import selectors
import socket
import struct
import sys

PATIENCE = 0.4
IP_RECVERR = {socket.AF_INET: 11, socket.AF_INET6: 25}  # linux/in.h, linux/in6.h
LEVELS = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
EXTENDED_ERROR = struct.Struct("=IBBBBII")  # linux/errqueue.h, struct sock_extended_err


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def kind_of(protocol: str) -> socket.SocketKind:
    return socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM


def answer(name: str, places: list[str]) -> None:
    """Answer whatever comes with our name and the address that it came from."""
    waiting = selectors.DefaultSelector()
    for place in places:
        protocol, _, rest = place.partition(":")
        address, _, port = rest.rpartition(":")
        one = socket.socket(family_of(address), kind_of(protocol))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, int(port)))
        if protocol == "tcp":
            one.listen(64)
        waiting.register(one, selectors.EVENT_READ, protocol)
    say("ready")
    while True:
        for key, _ in waiting.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if key.data == "udp":
                _, source = ready.recvfrom(65_535)
                ready.sendto(f"{name} {source[0]}".encode(), source)
            elif key.data == "tcp":
                accepted, _ = ready.accept()
                waiting.register(accepted, selectors.EVENT_READ, "accepted")
            else:
                waiting.unregister(ready)
                with ready:
                    if ready.recv(65_535):
                        ready.sendall(f"{name} {ready.getpeername()[0]}".encode())


def ask(protocol: str, address: str, port: int, size: int) -> dict[str, object]:
    """Send that many bytes and tell how far it came."""
    family = family_of(address)
    told: dict[str, object] = {"step": "connect", "error": None, "icmp": None, "answer": None}
    with socket.socket(family, kind_of(protocol)) as asking:
        asking.setsockopt(LEVELS[family], IP_RECVERR[family], 1)
        asking.settimeout(PATIENCE)
        try:
            asking.connect((address, port))
            told["step"] = "answer"
            asking.send(b"?" * size)
            told["answer"] = asking.recv(100).decode()
        except TimeoutError:
            told["error"] = "silence"
        except OSError as error:
            told["error"] = errno.errorcode[error.errno or 0]
        told["icmp"] = queued_error(asking)
    return told


def queued_error(asking: socket.socket) -> list[object] | None:
    """Type, code and sender of the ICMP error in the socket's error queue."""
    asking.settimeout(0)
    try:
        _, control, _, _ = asking.recvmsg(0, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    for level, _, data in control:
        if level in LEVELS.values():
            _, _, kind, code, _, _, _ = EXTENDED_ERROR.unpack_from(data)
            sender = data[EXTENDED_ERROR.size :]
            packed = sender[4:8] if asking.family == socket.AF_INET else sender[8:24]
            return [kind, code, socket.inet_ntop(asking.family, packed)]
    return None


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        answer(sys.argv[2], sys.argv[3:])
    else:
        size = int(sys.argv[5]) if len(sys.argv) > 5 else 256
        say(json.dumps(ask(sys.argv[2], sys.argv[3], int(sys.argv[4]), size)))
