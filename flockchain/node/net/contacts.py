"""Where a peer listens and who must answer there: the unit of peer exchange."""

import ipaddress
from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from flockchain.codec import Canonical
from flockchain.errors import Malformed, Refused
from flockchain.node.net.peers import PeerAddress
from flockchain.types.ids import Address

IpBytes = Annotated[bytes, Meta(min_length=4, max_length=16)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class Contact(Canonical, frozen=True):
    """Addresses are numbers: a name would make every node that hears of it ask somebody's DNS."""

    peer: Address
    ip: IpBytes
    """4 bytes of IPv4 or 16 of IPv6, network order; IPv4 is never written as IPv6."""
    port: Port

    @property
    def address(self) -> PeerAddress:
        return PeerAddress(str(_parse_ip(self.ip)), self.port, self.peer)


class Scope(IntEnum):
    """How far an address can be reached from."""

    MACHINE = 0
    PRIVATE = 1
    WORLD = 2


def make_contact(peer: bytes, host: str, port: int) -> Contact:
    """A contact whose host is an IP; raises `Refused` for a name or an address that nobody can dial."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        raise Refused("bad-peer-address", f"{host[:128]!r} is no IP address") from None
    contact = Contact(peer, _shorten(ip).packed, port)
    check_contact(contact)
    return contact


def check_contact(contact: Contact) -> None:
    """Raise `Malformed` for bytes that are no address which somebody could listen on."""
    ip = _parse_ip(contact.ip)
    if _shorten(ip) != ip:
        raise Malformed(f"{ip} is an IPv4 address in IPv6 form")
    if ip.is_unspecified or ip.is_multicast or (isinstance(ip, ipaddress.IPv4Address) and ip.is_reserved):
        raise Malformed(f"nobody can be dialled at {ip}")


def scope_of(ip: bytes) -> Scope:
    address = _parse_ip(ip)
    if address.is_loopback:
        return Scope.MACHINE
    return Scope.WORLD if address.is_global else Scope.PRIVATE


def group_of(ip: bytes) -> bytes:
    """What one operator can cheaply own many addresses of: /16 of IPv4, /32 of IPv6 (as Bitcoin's address manager)."""
    return ip[:2] if len(ip) == 4 else ip[:4]


def _parse_ip(ip: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(ip)
    except ValueError:
        raise Malformed(f"an IP address has 4 or 16 bytes, not {len(ip)}") from None


def _shorten(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A dual-stack listener sees IPv4 peers as ::ffff:a.b.c.d."""
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip
