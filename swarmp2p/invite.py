"""Invites: all that another machine needs to join a swarm, in one text that can be pasted.

    swarm1_5Hq...        nothing in it is secret
    swarm1secret_9bX...  holds the private swarm's key, or a capability: give it to nobody else, over no open channel

Behind the prefix, which names the version, stands base58 of a signed map (signed.py) and four bytes of its SHA-256:
typing errors and missing ends are told from forgeries. The inviter's signature covers all of it, so that an invite that
somebody has altered, to lead newcomers to other peers, is refused; whether it is the right peer who invites, the reader
has to know. An expiry binds those who join by it: a network key that was given cannot be taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import base58
from multiaddr.multiaddr import Multiaddr

from .engine import Address, PeerInfo
from .errors import BadMessage, InviteError, NetworkKeyError, UsageError
from .identity import Identity, PeerId, verify
from .network_key import NetworkKey
from .ray_bridge.grants import Grant
from .signed import sign_map, split_signed, unpack_map, verify_payload
from .transport.addresses import split_address
from .transport.reachability import Scope, scope_of

_PLAIN: Final = "swarm1_"
_SECRET: Final = "swarm1secret_"
_ANY: Final = "swarm"
_DOMAIN: Final = "invite"
_SUM_BYTES: Final = 4  # one in 4 billion wrong texts passes, and fails at the signature
_MAX_BYTES: Final = 2048
_MAX_CHARS: Final = 2900  # base58 of that
_MAX_PEERS: Final = 8
_MAX_ADDRESSES: Final = 8  # of each
_MAX_CAPABILITY_BYTES: Final = 512
_MAX_PROTOCOL_CHARS: Final = 255
_CLOCK_ERROR_S: Final = 30.0
_GRANT: Final = b"swarm-grant:"  # how a capability begins that is a grant
_AGAIN: Final = "copy it again, whole"
_ANOTHER: Final = "ask for another one"


@dataclass(frozen=True, slots=True)
class Invite:
    """What an invite says, and its text. Made by `issue` and `parse`.

    inviter: who signed it. peers: whom to join through, the inviter first, with their addresses. network_key: of the
    private swarm; None for an open one. dht_protocol: of the swarm's DHT, empty for the usual one. capability: what the
    inviter grants to who holds the invite, of no meaning here; empty for nothing. expires: seconds since the Unix
    epoch; None for never. text: to be pasted.
    """

    inviter: PeerId
    peers: tuple[PeerInfo, ...]
    network_key: NetworkKey | None = None
    dht_protocol: str = ""
    capability: bytes = field(default=b"", repr=False)
    expires: float | None = None
    text: str = field(default="", repr=False)

    @classmethod
    def issue(
        cls,
        identity: Identity,
        addresses: Iterable[Multiaddr | str],
        *,
        network_key: NetworkKey | None = None,
        dht_protocol: str = "",
        capability: bytes = b"",
        expires: float | None = None,
    ) -> Invite:
        """A new invite, signed. addresses: of peers to join through, ending in /p2p/<id>; 8 peers at most, 8 addresses
        each. Raises AddressError, UsageError."""
        peers = _peers(identity.peer_id, addresses)
        if len(capability) > _MAX_CAPABILITY_BYTES:
            raise UsageError(f"a capability has at most {_MAX_CAPABILITY_BYTES} bytes, not {len(capability)}")
        fields: dict[str, Any] = {
            "by": bytes(identity.peer_id),
            "at": [
                [b"" if one.peer == identity.peer_id else bytes(one.peer), *one.addresses] for one in peers
            ],
        }
        if network_key is not None:
            fields["key"] = network_key.secret
        if dht_protocol:
            fields["dht"] = dht_protocol
        if capability:
            fields["cap"] = capability
        if expires is not None:
            fields["end"] = round(expires)
        envelope = sign_map(_DOMAIN, fields, identity.sign)
        if len(envelope) > _MAX_BYTES:
            raise UsageError(
                f"an invite has at most {_MAX_BYTES} bytes, not {len(envelope)}: name fewer addresses"
            )
        prefix = _SECRET if "key" in fields or "cap" in fields else _PLAIN
        text = prefix + base58.b58encode(envelope + _checksum(prefix, envelope)).decode()
        return cls(identity.peer_id, peers, network_key, dht_protocol, capability, fields.get("end"), text)

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read an invite, whoever signed it and whether or not it has expired: `check` says that.

        Raises InviteError when it is none, cut off, mistyped, forged, or of a version that is not known here.
        """
        if not isinstance(cast(object, text), str):
            raise InviteError("it is no text", _AGAIN)
        prefix, body = _split("".join(text.split()))
        try:
            raw = base58.b58decode(body)
        except ValueError:
            odd = next((one for one in body if one.encode(errors="replace") not in _ALPHABET), "?")
            raise InviteError(f"the character {odd!r} stands in none", _AGAIN) from None
        envelope, said = raw[:-_SUM_BYTES], raw[-_SUM_BYTES:]
        if said != _checksum(prefix, envelope):
            raise InviteError("characters are missing, too many or wrong", _AGAIN)
        try:
            return _read(envelope, prefix + body)
        except (BadMessage, UsageError, NetworkKeyError, TypeError, ValueError, OverflowError) as problem:
            raise InviteError(f"what it says cannot be used ({problem})", _ANOTHER) from None

    def check(self, now: float) -> None:
        """Raises InviteError when it has expired; clocks may differ by half a minute."""
        if self.expires is not None and now > self.expires + _CLOCK_ERROR_S:
            raise InviteError(f"it expired {_ago(now - self.expires)} ago", _ANOTHER)

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where to join: multiaddrs ending in /p2p/<id>."""
        return tuple(
            Multiaddr(f"{Multiaddr(address)}/p2p/{one.peer}")
            for one in self.peers
            for address in one.addresses
        )

    @property
    def grant(self) -> Grant | None:
        """The permission to lease that comes with it, if one does. Raises InviteError for one that is not genuine."""
        if not self.capability.startswith(_GRANT):
            return None
        try:
            return Grant.from_bytes(self.capability[len(_GRANT) :], verify)
        except BadMessage as problem:
            raise InviteError(f"the grant in it cannot be used ({problem})", _ANOTHER) from None

    @property
    def secret(self) -> bool:
        """Whether who reads it has something that others should not: a key, or a capability."""
        return self.network_key is not None or bool(self.capability)


def grant_capability(grant: Grant) -> bytes:
    """A grant as an invite's capability."""
    return _GRANT + grant.to_bytes()


_ALPHABET: Final = base58.BITCOIN_ALPHABET


def invitable(addresses: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Of a peer's addresses, those to invite to: not the loopback ones, unless there are no others."""
    every = tuple(addresses)
    hosts = [(one, scope_of(str(one).split("/")[2])) for one in every]
    return tuple(one for one, scope in hosts if scope is not Scope.MACHINE) or every


def is_invite(value: object) -> bool:
    """Whether a text is meant to be an invite; multiaddrs begin with a slash."""
    return isinstance(value, str) and value.strip().startswith(_ANY)


def _split(text: str) -> tuple[str, str]:
    for prefix in (_PLAIN, _SECRET):
        if text.startswith(prefix) and len(text) <= _MAX_CHARS:
            return prefix, text[len(prefix) :]
    if len(text) > _MAX_CHARS:
        raise InviteError(f"it has {len(text)} characters, where {_MAX_CHARS} are the most", _AGAIN)
    version = text[len(_ANY) :].partition("_")[0].removesuffix("secret")
    if text.startswith(_ANY) and "_" in text and version.isascii() and version.isdigit():
        raise InviteError(
            f"it is of version {version[:8]}, and this swarmp2p knows version 1",
            "install a newer one",
        )
    raise InviteError(f"it does not begin with {_PLAIN} or {_SECRET}", _AGAIN)


def _read(envelope: bytes, text: str) -> Invite:
    """Raises BadMessage and what wrong types raise."""
    payload, signature = split_signed(envelope, _MAX_BYTES)
    fields = unpack_map(payload, _MAX_BYTES)
    inviter = PeerId.from_bytes(_bytes(fields, "by"))
    if not verify_payload(_DOMAIN, payload, signature, inviter, verify):
        raise BadMessage(f"{inviter.short} did not sign it: somebody has altered it")
    peers = fields.get("at")
    if not isinstance(peers, list) or not 0 < len(cast("list[object]", peers)) <= _MAX_PEERS:
        raise BadMessage("it names no peers")
    infos = tuple(_info(one, inviter) for one in cast("list[object]", peers))
    key, protocol, end = fields.get("key"), fields.get("dht", ""), fields.get("end")
    if not isinstance(protocol, str) or len(protocol) > _MAX_PROTOCOL_CHARS:
        raise BadMessage("its DHT protocol is no text")
    if end is not None and (not isinstance(end, int) or isinstance(end, bool) or not 0 <= end < 1 << 53):
        raise BadMessage("its expiry is no time")
    capability = _bytes(fields, "cap") if "cap" in fields else b""
    return Invite(inviter, infos, None if key is None else NetworkKey(key), protocol, capability, end, text)


def _info(said: object, inviter: PeerId) -> PeerInfo:
    if not isinstance(said, list):
        raise BadMessage("a peer in it has no addresses")
    parts = cast("list[object]", said)
    if not 2 <= len(parts) <= 1 + _MAX_ADDRESSES or not all(isinstance(part, bytes) for part in parts):
        raise BadMessage("a peer in it has no addresses, or too many")
    who, *addresses = cast("list[bytes]", parts)
    peer = inviter if who == b"" else PeerId.from_bytes(who)
    return PeerInfo(peer, tuple(split_address(f"{Multiaddr(one)}/p2p/{peer}")[1] for one in addresses))


def _bytes(fields: Mapping[str, object], name: str) -> bytes:
    value = fields.get(name)
    if not isinstance(value, bytes) or len(value) > _MAX_CAPABILITY_BYTES:
        raise BadMessage(f"its field {name} is not what it should be")
    return value


def _peers(first: PeerId, addresses: Iterable[Multiaddr | str]) -> tuple[PeerInfo, ...]:
    found: dict[PeerId, dict[Address, None]] = {}
    for address in addresses:
        peer, transport = split_address(address)
        found.setdefault(peer, {})[transport] = None
    if not found:
        raise UsageError(
            "an invite names at least one address to join at; this peer has none that others can dial"
        )
    order = sorted(found, key=lambda peer: peer != first)[:_MAX_PEERS]
    return tuple(PeerInfo(peer, tuple(found[peer])[:_MAX_ADDRESSES]) for peer in order)


def _checksum(prefix: str, envelope: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + envelope).digest()[:_SUM_BYTES]


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class Entrance:
    """Into which swarm, and by whom: what `open_peer`'s arguments come to. dht_protocol: empty for the usual one.
    grants: that came with the invites."""

    addresses: tuple[Multiaddr | str, ...]
    network_key: NetworkKey | None = None
    dht_protocol: str = ""
    grants: tuple[Grant, ...] = ()


def entrance(
    bootstrap: Iterable[Multiaddr | str],
    network_key: NetworkKey | None,
    now: float,
) -> Entrance:
    """Bootstrap addresses and invites, together. Raises InviteError, UsageError where they are of several swarms."""
    addresses: list[Multiaddr | str] = []
    grants: list[Grant] = []
    key, protocols = network_key, dict[str, None]()
    for one in bootstrap:
        if not is_invite(one):
            addresses.append(one)
            continue
        invite = Invite.parse(str(one))
        invite.check(now)
        addresses += invite.addresses
        if invite.grant is not None:
            grants.append(invite.grant)
        protocols[invite.dht_protocol] = None
        if invite.network_key is not None:
            if key is not None and key.secret != invite.network_key.secret:
                raise UsageError(
                    f"the invite is for the private swarm {invite.network_key.name}, and the network key is that of "
                    f"{key.name}: a peer is in one swarm; leave one of them out"
                )
            key = invite.network_key
    if len(protocols) > 1:
        raise UsageError(
            f"the invites are for swarms with different DHTs ({', '.join(protocols)}): take one of them"
        )
    return Entrance(tuple(addresses), key, next(iter(protocols), ""), tuple(grants))
