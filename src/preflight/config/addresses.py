"""Addresses and names as users write them -> literal addresses in one canonical form."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from preflight.config.reading import Place
from preflight.errors import ConfigError
from preflight.model.cluster import DEFAULT_CONTROL_PORT
from preflight.ports import parse_ports

Resolve: TypeAlias = Callable[[str], str | Sequence[str]]
"""A host name -> its addresses, both families. Raises `ConfigError` or `OSError`."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_LONGEST_HOST_NAME = 253
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


def literal_addresses_only(name: str) -> Sequence[str]:
    """The resolver for where none is at hand: refuses every name."""
    raise ConfigError(f'"{name}" is a name, and names are not resolved here: write an address')


def read_addresses(text: str, resolve: Resolve, place: Place) -> tuple[str, ...]:
    """One literal address, or every address of a host name. Raises `ConfigError`.

    What has the characters of an address is never taken for a name, so that 10.0.1.300 is an
    error here and not a query to a name server.
    """
    if not _looks_literal(text):
        return _resolve(text, resolve, place)
    return (read_literal(text, place),)


def read_literal(text: str, place: Place) -> str:
    """One literal address, in the one form that it has in plans and reports (RFC 5952).

    An IPv4-mapped IPv6 address is the IPv4 address. Raises `ConfigError` for anything else,
    and for addresses that no single machine can be reached at.
    """
    if "%" in text:
        raise place.error(f'"{text}" has a zone, which means something on one machine only')
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise place.error(f'"{text}" is not an IP address') from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise place.error(f"{address} is not the address of one machine")
    return str(address)


def read_control(text: str, resolve: Resolve, place: Place) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address -> (literal address, port)."""
    host, port_text = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise place.error(f'"{text}" is not ADDRESS:PORT')
        port_text = rest[1:] if rest else str(DEFAULT_CONTROL_PORT)
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    else:
        port_text = str(DEFAULT_CONTROL_PORT)
    try:
        ((port, last),) = parse_ports(port_text)
    except ValueError as error:
        raise place.error(f'"{text}" is not ADDRESS:PORT ({error})') from None
    if port != last:
        raise place.error(f'"{text}": a control connection has one port')
    return read_addresses(host, resolve, place)[0], port


def is_host_name(text: str) -> bool:
    """Whether this can be a host name (RFC 1123, and underscores, which are seen in the wild)."""
    return len(text) <= _LONGEST_HOST_NAME and _HOST_NAME.fullmatch(text) is not None


def _looks_literal(text: str) -> bool:
    return any(mark in text for mark in ":%/") or bool(_DIGITS_AND_DOTS.fullmatch(text))


def _resolve(name: str, resolve: Resolve, place: Place) -> tuple[str, ...]:
    if not is_host_name(name):
        raise place.error(f'"{name}" is neither an address nor a host name')
    try:
        found = resolve(name)
    except ConfigError as error:
        raise place.error(str(error)) from error
    except OSError as error:
        raise place.error(f'"{name}" could not be resolved: {error.strerror or error}') from error
    listed = (found,) if isinstance(found, str) else found
    if not listed:
        raise place.error(f'"{name}" has no address')
    return tuple(dict.fromkeys(read_literal(address, place) for address in listed))
