"""What a cluster's members make of its roster: how each two of them reach each other, and what one machine needs.

Every member computes this by itself, from the same roster, with the same result. Of two workers it depends on them and
their paths to the head; of a worker and the head on those two alone, so that it stands before there are others.

- **direct**: only with the head, for a worker in the head's machine and network namespace. Such a worker is a *guest*:
  it needs no listeners and no sessions of its own. Those of the head's machine serve it, and the head's sessions lead
  to its ports, too.
- **wireguard**: when both can and allow it and one of them is reached from outside. Members keep the addresses that
  they have by any path: translation at both ends of the tunnel leads to them (../wireguard/description.py).
- **overlay**: otherwise. One of the two has to begin (`initiator`): the one that can dial the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Generic, TypeVar

from ...engine import Address
from ...identity import PeerId
from .members import Carrier, Endpoint, Member, MemberId, PortBlock, Roster

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Path:
    """How two members reach each other. carrier: None when they cannot. reason: in words, for people."""

    carrier: Carrier | None
    reason: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Own ports that others may reach: an address on this machine (or in this cell), and a block there."""

    member: MemberId
    address: str
    block: PortBlock


@dataclass(frozen=True, slots=True)
class Listener:
    """Listen here, at another member's address and ports, and forward to that member.

    member: whose they are. through: whose session leads there; another than `member` for the head's guests.
    """

    member: MemberId
    through: MemberId
    address: str
    block: PortBlock


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """A session with another member's machine. initiator: this side dials. endpoints, addresses: where: TCP, and
    libp2p's of its peer where TCP cannot be dialled."""

    member: MemberId
    peer: PeerId
    initiator: bool
    endpoints: tuple[Endpoint, ...]
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """A peer of the WireGuard interface.

    endpoints: where its packets are taken, if anywhere. inside: its address in the tunnel, the only one allowed to its
    key. address, block: where its Ray node is reached, as over any path.
    """

    member: MemberId
    key: bytes
    endpoints: tuple[Endpoint, ...]
    inside: str
    address: str
    block: PortBlock


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What one member's machine needs, each in order of member ids.

    guest: nothing, because it is on the head's machine. wireguard_address: of its interface; "" without one.
    paths: how it reaches each other member.
    """

    guest: bool
    serves: tuple[Serve, ...]
    listeners: tuple[Listener, ...]
    sessions: tuple[SessionPlan, ...]
    wireguard_address: str
    wireguard: tuple[WireGuardPeer, ...]
    paths: tuple[tuple[MemberId, Path], ...]

    def path(self, member: MemberId) -> Path | None:
        """How a member is reached."""
        return dict(self.paths).get(member)


NOTHING = MachinePlan(False, (), (), (), "", (), ())
"""The plan before there is a roster."""


def path(cluster: MemberId, a: Member, b: Member, head: Member | None = None) -> Path:
    """How two members of a cluster reach each other; the same for (b, a). head: needed for two workers only."""
    if cluster in (a.member, b.member):
        return _with_head(a, b)
    assert head is not None, "two workers' path depends on the head"
    to_a, to_b = _with_head(head, a), _with_head(head, b)
    if to_a.carrier is Carrier.DIRECT and to_b.carrier is Carrier.DIRECT:
        return Path(Carrier.DIRECT, "both run on the head's machine")
    if Carrier.DIRECT in (to_a.carrier, to_b.carrier):
        other = b if to_a.carrier is Carrier.DIRECT else a
        if _both(Carrier.OVERLAY, head, other):
            return Path(Carrier.OVERLAY, "one of them runs on the head's machine, which forwards for it")
        return Path(None, _lacking(Carrier.OVERLAY, head, other))
    return _between_machines(a, b)


def _with_head(a: Member, b: Member) -> Path:
    if a.facts.machine and a.facts.machine == b.facts.machine and _both(Carrier.DIRECT, a, b):
        return Path(Carrier.DIRECT, "both run on one machine and in one network namespace")
    return _between_machines(a, b)


def _between_machines(a: Member, b: Member) -> Path:
    if _both(Carrier.WIREGUARD, a, b) and _sends_first(a, b):
        return Path(Carrier.WIREGUARD, "both can and allow WireGuard")
    if _both(Carrier.OVERLAY, a, b):
        if _both(Carrier.WIREGUARD, a, b):
            return Path(Carrier.OVERLAY, "WireGuard packets from outside reach neither of them")
        if not any(_wants(Carrier.WIREGUARD, each) for each in (a, b)):
            return Path(Carrier.OVERLAY, "neither allows WireGuard")
        return Path(Carrier.OVERLAY, f"no WireGuard: {_lacking(Carrier.WIREGUARD, a, b)}")
    return Path(
        None,
        f"no overlay: {_lacking(Carrier.OVERLAY, a, b)}; no WireGuard: {_lacking(Carrier.WIREGUARD, a, b)}; "
        "and they are not on one machine, or do not allow a direct path",
    )


def _wants(carrier: Carrier, member: Member) -> bool:
    """Whether a member allows a carrier, even if it cannot have it."""
    return carrier in member.facts.carriers or carrier in dict(member.facts.lacks)


def _both(carrier: Carrier, a: Member, b: Member) -> bool:
    return carrier in a.facts.carriers and carrier in b.facts.carriers


def _sends_first(a: Member, b: Member) -> bool:
    """Whether WireGuard's first packet can be sent by one of them."""
    return bool(a.facts.wireguard_endpoints or b.facts.wireguard_endpoints)


def _lacking(carrier: Carrier, a: Member, b: Member) -> str:
    """Why two members do not share a carrier."""
    for each in sorted((a, b), key=lambda member: member.member):
        if carrier not in each.facts.carriers:
            return f"peer {each.peer.short}: {each.facts.why_not(carrier)}"
    return "nothing from outside reaches either of them"


def initiates(a: Member, b: Member) -> bool:
    """Whether `a` begins a session with `b`: the one that can dial the other, and the lower id where both or neither
    can."""
    to_a, to_b = _dialled(a, b), _dialled(b, a)
    return to_b if to_a != to_b else a.member < b.member


def _dialled(whom: Member, by: Member) -> bool:
    """Whether a member is likely to be reached by another: a loopback address is of use on its own machine alone."""
    near = bool(whom.facts.machine) and whom.facts.machine == by.facts.machine
    return whom.facts.reachable and any(
        near or not ip_address(each.ip).is_loopback for each in whom.facts.endpoints
    )


def plan(roster: Roster, me: MemberId) -> MachinePlan:
    """What the machine of member `me` needs; NOTHING when the roster does not name it."""
    own, head = roster.get(me), roster.get(roster.cluster)
    if own is None or head is None:
        return NOTHING
    paths = {
        other.member: path(roster.cluster, own, other, head) for other in roster.members if other.member != me
    }
    told = tuple(paths.items())
    guests = _guests(roster, head)
    if me in guests:
        return MachinePlan(True, (), (), (), "", (), told)
    others = [each for each in roster.members if each.member in paths and each.member not in guests]
    peers = [each for each in others if paths[each.member].carrier is Carrier.WIREGUARD]
    sessions = [
        each
        for each in others
        if paths[each.member].carrier is Carrier.OVERLAY
        # the head's guests are reached through its session, also where the head itself is by WireGuard
        or (guests and each in peers and head in (own, each) and _both(Carrier.OVERLAY, own, each))
    ]
    return MachinePlan(
        guest=False,
        serves=_serves(own, guests if own is head else {}),
        listeners=_listeners(roster, paths, {} if own is head else guests),
        sessions=tuple(
            SessionPlan(
                other.member,
                other.peer,
                initiates(own, other),
                other.facts.endpoints,
                other.facts.addresses,
            )
            for other in sessions
        ),
        wireguard_address=own.wireguard_address if peers else "",
        wireguard=tuple(
            WireGuardPeer(
                other.member,
                other.facts.wireguard_key,
                other.facts.wireguard_endpoints,
                other.wireguard_address,
                other.address,
                other.block,
            )
            for other in peers
        ),
        paths=told,
    )


def _guests(roster: Roster, head: Member) -> dict[MemberId, Member]:
    return {
        each.member: each
        for each in roster.members
        if each is not head and path(roster.cluster, head, each).carrier is Carrier.DIRECT
    }


def _serves(own: Member, guests: dict[MemberId, Member]) -> tuple[Serve, ...]:
    everybody = sorted([own, *guests.values()], key=lambda each: each.member)
    return tuple(Serve(each.member, each.address, each.block) for each in everybody)


def _listeners(
    roster: Roster, paths: dict[MemberId, Path], guests: dict[MemberId, Member]
) -> tuple[Listener, ...]:
    """One for each member reached by the overlay. guests: those that are reached through the head."""
    return tuple(
        Listener(
            each.member, roster.cluster if each.member in guests else each.member, each.address, each.block
        )
        for each in roster.members
        if each.member in paths and paths[each.member].carrier is Carrier.OVERLAY
    )


# Changes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference(Generic[Value]):
    """What to take down and what to make, in this order; whatever is in neither stays untouched."""

    gone: tuple[Value, ...]
    new: tuple[Value, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.new)


@dataclass(frozen=True, slots=True)
class Changes:
    """How one plan becomes another.

    A session whose partner merely told other endpoints or addresses is in `moved`: it stays, and uses them when it
    dials the next time. The same for WireGuard's peers, by key.
    """

    serves: Difference[Serve]
    listeners: Difference[Listener]
    sessions: Difference[SessionPlan]
    moved: tuple[SessionPlan, ...]
    wireguard_address: tuple[str, str] | None
    wireguard: Difference[WireGuardPeer]

    def __bool__(self) -> bool:
        return bool(
            self.serves
            or self.listeners
            or self.sessions
            or self.moved
            or self.wireguard_address
            or self.wireguard
        )


def changes(old: MachinePlan, new: MachinePlan) -> Changes:
    """What has to be done when `new` follows `old`: no more and no less."""
    before = {(each.member, each.peer, each.initiator): each for each in old.sessions}
    after = {(each.member, each.peer, each.initiator): each for each in new.sessions}
    return Changes(
        serves=_difference(old.serves, new.serves),
        listeners=_difference(old.listeners, new.listeners),
        sessions=Difference(
            tuple(each for key, each in before.items() if key not in after),
            tuple(each for key, each in after.items() if key not in before),
        ),
        moved=tuple(each for key, each in after.items() if key in before and before[key] != each),
        wireguard_address=(
            None
            if old.wireguard_address == new.wireguard_address
            else (old.wireguard_address, new.wireguard_address)
        ),
        wireguard=_difference(old.wireguard, new.wireguard),
    )


def _difference(old: tuple[Value, ...], new: tuple[Value, ...]) -> Difference[Value]:
    """Both are short (one entry a member): membership by hash."""
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    return Difference(
        tuple(each for each in old if each not in after), tuple(each for each in new if each not in before)
    )
