"""TLS of the control connection: both sides verified against the cluster's own CA.

There is no host name to check: that a node's agent is reached is what the run finds out. The
extended key usage, which OpenSSL verifies by itself on each side, tells agent from coordinator.
"""

import os
import ssl

from preflight.net.keys import AgentKey, CoordinatorKey, Identity

HANDSHAKE_PATIENCE = 10.0
"""Seconds for one handshake."""
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, x509_vfy.h). A wrong clock is one of the things that we
come to measure, and must not keep us out."""


def coordinator_context(key: CoordinatorKey) -> ssl.SSLContext:
    """For connections to agents: accepts only this cluster's agents."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, key)


def agent_context(key: AgentKey) -> ssl.SSLContext:
    """For an agent's control port: accepts only this cluster's coordinator."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, key)
    # Every conversation is a new handshake: a ticket would be of no use.
    context.num_tickets = 0
    return context


def _context(protocol: int, key: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _NO_CHECK_TIME
    context.load_verify_locations(cadata=key.ca_pem)
    _load_own(context, key.cert_pem + key.key_pem)
    return context


def _load_own(context: ssl.SSLContext, pem: str) -> None:
    """`load_cert_chain` reads files only: give it one that is in memory (memfd_create(2))."""
    descriptor = os.memfd_create("preflight", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
