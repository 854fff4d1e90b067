"""Programs that are not ours and answer in another's place, or hold its ports.

python strangers.py KIND:PROTOCOL:ADDRESS:PORT...    until it is ended; says "ready" once

Kinds: "silent", "close", "reset", "banner", "echo" and "tls" listen; "idle" only binds; "knock"
connects there all the time, and says nothing: a load balancer's health check.
"""

import asyncio
import contextlib
import datetime as dt
import signal
import socket
import ssl
import struct
import sys
import tempfile
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BANNER = b"SSH-2.0-OpenSSH_9.2p1\r\n"
NO_LINGER = struct.pack("ii", 1, 0)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tls_context() -> ssl.SSLContext:
    """A server's, with a certificate that it gave itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stranger.pem")
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(file)
    return context


async def meet(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection: whoever asks may reset it at any time."""
    with contextlib.suppress(ConnectionError):
        await talk(kind, reader, writer)


async def talk(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a listener of this kind does with a connection."""
    if kind == "reset":
        accepted = writer.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    elif kind == "banner":
        writer.write(BANNER)
        await reader.read()
    elif kind == "echo":
        while data := await reader.read(65_536):
            writer.write(data)
    elif kind in ("silent", "tls"):
        await reader.read()
    writer.close()


class Echo(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def hold(kind: str, protocol: str, address: str, port: int) -> object:
    """Returns what must not be forgotten."""
    stream = protocol == "tcp"
    if kind == "knock":
        return asyncio.create_task(knock(address, port))
    if kind == "idle" or (not stream and kind == "silent"):
        bound = socket.socket(
            family_of(address), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        )
        bound.bind((address, port))
        return bound
    if not stream:
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(Echo, local_addr=(address, port))
    return await asyncio.start_server(
        lambda reader, writer: meet(kind, reader, writer),
        *(address, port),
        ssl=tls_context() if kind == "tls" else None,
    )


async def knock(address: str, port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
        await asyncio.sleep(0.1)


async def main(places: list[str]) -> None:
    held = []
    for place in places:
        kind, protocol, rest = place.split(":", 2)
        address, _, port = rest.rpartition(":")
        held.append(await hold(kind, protocol, address, int(port)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    del held


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
