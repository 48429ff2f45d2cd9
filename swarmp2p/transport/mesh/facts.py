"""Facts as a member signs them: msgpack under the domain "mesh-facts", for one membership of one cluster.

The signature is what lets a worker believe what it hears of another from the head: where it is dialled, whether it
runs on the same machine, its WireGuard key. Facts of another cluster, or of another member, are refused.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from ...errors import BadMessage, UsageError
from ...fields import Fields, is_ip
from ...identity import PeerId
from ...signed import Sign, Verify, open_signed, sign_map
from .members import (
    MACHINE_BYTES,
    MAX_ADDRESS_BYTES,
    MAX_ADDRESSES,
    MAX_ENDPOINTS,
    MAX_IP_CHARS,
    MAX_WHY_CHARS,
    MEMBER_ID_BYTES,
    WIREGUARD_KEY_BYTES,
    Carrier,
    Endpoint,
    Facts,
    MemberId,
)

MAX_FACTS_BYTES: Final = 4096
"""Longest envelope: facts with every field at its longest need 3.2 kB."""

MAX_SEQUENCE: Final = 1 << 53
_DOMAIN: Final = "mesh-facts"
_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")
_CARRIERS: Final = {carrier.value: carrier for carrier in Carrier}


def sign_facts(cluster: MemberId, member: MemberId, facts: Facts, sign: Sign) -> bytes:
    """The envelope. Raises UsageError for facts that nobody would read; says which."""
    fields: dict[str, Any] = {
        "cluster": cluster,
        "member": member,
        "seq": facts.sequence,
        "carriers": [carrier.value for carrier in facts.carriers],
        "lacks": [[carrier.value, why] for carrier, why in facts.lacks],
        "endpoints": _pairs(facts.endpoints),
        "reachable": facts.reachable,
        "addresses": list(facts.addresses),
        "machine": facts.machine,
        "address": facts.address,
        "wg_key": facts.wireguard_key,
        "wg_endpoints": _pairs(facts.wireguard_endpoints),
    }
    try:
        _facts(cluster, member, Fields(fields))
    except BadMessage as problem:
        raise UsageError(f"facts that others would refuse: {problem}") from None
    envelope = sign_map(_DOMAIN, fields, sign)
    if len(envelope) > MAX_FACTS_BYTES:
        raise UsageError(
            f"facts of {len(envelope)} bytes are too long; at most {MAX_FACTS_BYTES} are passed on"
        )
    return envelope


def read_facts(cluster: MemberId, member: MemberId, envelope: bytes, signer: PeerId, verify: Verify) -> Facts:
    """The facts in an envelope; raises BadMessage unless `signer` signed them for this member of this cluster."""
    return _facts(cluster, member, Fields(open_signed(_DOMAIN, envelope, signer, verify, MAX_FACTS_BYTES)))


def _facts(cluster: MemberId, member: MemberId, fields: Fields) -> Facts:
    for name, value in (("cluster", cluster), ("member", member)):
        if fields.data(name, MEMBER_ID_BYTES, MEMBER_ID_BYTES) != value:
            raise BadMessage(f"facts of another {name}")
    carriers = tuple(_carrier(each) for each in fields.items("carriers", len(Carrier)))
    lacks = tuple(_lack(each) for each in fields.items("lacks", len(Carrier)))
    if len(set(carriers)) < len(carriers) or len(dict(lacks)) < len(lacks):
        raise BadMessage("a carrier is named twice")
    facts = Facts(
        sequence=fields.integer("seq", 0, MAX_SEQUENCE),
        carriers=carriers,
        lacks=lacks,
        endpoints=_endpoints(fields, "endpoints"),
        reachable=fields.flag("reachable"),
        addresses=tuple(_address(each) for each in fields.items("addresses", MAX_ADDRESSES)),
        machine=fields.data("machine", 0, MACHINE_BYTES),
        address=_loopback(fields.text("address", MAX_IP_CHARS)),
        wireguard_key=fields.data("wg_key", 0, WIREGUARD_KEY_BYTES),
        wireguard_endpoints=_endpoints(fields, "wg_endpoints"),
    )
    fields.done()
    if len(facts.machine) not in (0, MACHINE_BYTES) or len(facts.wireguard_key) not in (
        0,
        WIREGUARD_KEY_BYTES,
    ):
        raise BadMessage("a machine's name or a WireGuard key of another length")
    if Carrier.WIREGUARD in carriers and not any(facts.wireguard_key):
        raise BadMessage("WireGuard without a key")
    return facts


def is_member_address(text: str) -> bool:
    """Whether a member may be there: at a loopback address, whatever its carrier (members.py)."""
    return is_ip(text) and ipaddress.ip_address(text) in _LOOPBACK


def _pairs(endpoints: tuple[Endpoint, ...]) -> list[list[Any]]:
    return [[endpoint.ip, endpoint.port] for endpoint in endpoints]


def _endpoints(fields: Fields, key: str) -> tuple[Endpoint, ...]:
    return tuple(_endpoint(each) for each in fields.items(key, MAX_ENDPOINTS))


def _endpoint(value: Any) -> Endpoint:
    if type(value) is not list or len(value) != 2:
        raise BadMessage("an endpoint is not [ip, port]")
    ip, port = value
    if type(ip) is not str or len(ip) > MAX_IP_CHARS or not is_ip(ip):
        raise BadMessage("an endpoint's ip is none")
    if type(port) is not int or not 0 < port < 65536:
        raise BadMessage("an endpoint's port is none")
    return Endpoint(ip, port)


def _carrier(value: Any) -> Carrier:
    carrier = _CARRIERS.get(value) if type(value) is str else None
    if carrier is None:
        raise BadMessage("no such carrier")
    return carrier


def _lack(value: Any) -> tuple[Carrier, str]:
    if type(value) is not list or len(value) != 2:
        raise BadMessage("what is lacking is not [carrier, why]")
    why = value[1]
    if type(why) is not str or len(why) > MAX_WHY_CHARS or not why.isprintable():
        raise BadMessage(
            f"why a carrier is lacking is not printable text of {MAX_WHY_CHARS} characters at most"
        )
    return _carrier(value[0]), why


def _address(value: Any) -> bytes:
    if type(value) is not bytes or not 1 <= len(value) <= MAX_ADDRESS_BYTES:
        raise BadMessage(f"an address is not 1 to {MAX_ADDRESS_BYTES} bytes")
    return value


def _loopback(text: str) -> str:
    """ "" or an address of 127.0.0.0/8: others listen there, on its behalf."""
    if text and not is_member_address(text):
        raise BadMessage("a node's own address is not in 127.0.0.0/8")
    return text
