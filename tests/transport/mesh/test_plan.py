"""Plans: all pairs reach each other, both sides see it alike, and a change touches nothing that stays."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.transport.mesh.members import Carrier, Endpoint, Facts, Member, Roster, roster
from swarmp2p.transport.mesh.plan import NOTHING, MachinePlan, changes, initiates, path, plan

from .made import CLUSTER, cluster, drawn_facts, facts_of, head, rosters, worker

MACHINE = b"m" * 32
BOTH = (Carrier.DIRECT, Carrier.OVERLAY)
WIRED = Facts(carriers=(Carrier.WIREGUARD, Carrier.OVERLAY), wireguard_key=b"k" * 32)
REACHED = replace(WIRED, wireguard_endpoints=(Endpoint("10.0.0.1", 51820),))


def machine_of(found: Roster, member: Member) -> MachinePlan:
    """The plan that counts where a member runs: for guests, the head's machine's."""
    own = plan(found, member.member)
    return plan(found, found.cluster) if own.guest else own


def reaches(found: Roster, a: Member, b: Member) -> bool:
    """Whether `a` can connect to `b`'s ports, by what the machines of both do."""
    here, there = machine_of(found, a), machine_of(found, b)
    if here == there:  # one machine: b's processes listen there themselves
        return True
    if any(
        (b.member, b.address, b.block) == (each.member, each.address, each.block) for each in here.wireguard
    ):
        machine = CLUSTER if plan(found, a.member).guest else a.member
        return any(each.member == machine for each in there.wireguard)
    listening = [each for each in here.listeners if each.address == b.address and each.block == b.block]
    if len(listening) != 1:
        return False
    through = listening[0].through
    session = [each for each in here.sessions if each.member == through]
    serving = [each for each in there.serves if each.address == b.address and each.block == b.block]
    return len(session) == 1 and len(serving) == 1 and machine_of(found, _get(found, through)) == there


def _get(found: Roster, member: bytes) -> Member:
    got = found.get(member)
    assert got is not None
    return got


@settings(max_examples=100, deadline=None)
@given(rosters())
def test_every_member_reaches_every_other(found: Roster) -> None:
    for a in found.members:
        for b in found.members:
            assert a is b or reaches(found, a, b), (a, b)


@settings(max_examples=80, deadline=None)
@given(rosters())
def test_two_members_agree_on_their_path_and_on_who_begins(found: Roster) -> None:
    plans = {each.member: plan(found, each.member) for each in found.members}
    for a in found.members:
        for b in found.members:
            if a is b:
                continue
            assert plans[a.member].path(b.member) == plans[b.member].path(a.member)
            ours = {each.member: each.initiator for each in plans[a.member].sessions}
            theirs = {each.member: each.initiator for each in plans[b.member].sessions}
            assert (b.member in ours) == (a.member in theirs)
            if b.member in ours:
                assert ours[b.member] is not theirs[a.member]


@settings(max_examples=80, deadline=None)
@given(rosters(), st.integers(0, 99))
def test_the_order_of_members_does_not_matter(found: Roster, seed: int) -> None:
    shuffled = list(found.members)
    Random(seed).shuffle(shuffled)
    again = roster(found.cluster, found.head, found.sequence, shuffled)
    assert all(plan(again, each.member) == plan(found, each.member) for each in found.members)


def _applied(old: MachinePlan, new: MachinePlan) -> MachinePlan:
    """`old` with the differences carried out as a machine would, one by one."""
    found = changes(old, new)
    sessions = {each.member: each for each in old.sessions}
    for session in found.sessions.gone:
        del sessions[session.member]
    for session in found.sessions.new:
        assert session.member not in sessions
        sessions[session.member] = session
    for session in found.moved:
        assert session.member in sessions
        sessions[session.member] = session
    serves, listeners, peers = list(old.serves), list(old.listeners), list(old.wireguard)
    for serve in found.serves.gone:
        serves.remove(serve)
    for listener in found.listeners.gone:
        listeners.remove(listener)
    for peer in found.wireguard.gone:
        peers.remove(peer)
    serves += found.serves.new
    listeners += found.listeners.new
    peers += found.wireguard.new
    address = found.wireguard_address[1] if found.wireguard_address else old.wireguard_address
    return MachinePlan(
        new.guest,
        tuple(sorted(serves, key=lambda each: each.member)),
        tuple(sorted(listeners, key=lambda each: each.member)),
        tuple(sessions[member] for member in sorted(sessions)),
        address,
        tuple(sorted(peers, key=lambda each: each.member)),
        new.paths,
    )


@settings(max_examples=100, deadline=None)
@given(rosters(), rosters(), st.booleans())
def test_changes_make_the_new_plan_of_the_old_one(before: Roster, after: Roster, first: bool) -> None:
    for member in (CLUSTER, after.members[0].member):
        old = NOTHING if first else plan(before, member)
        assert _applied(old, plan(after, member)) == plan(after, member)


@settings(max_examples=80, deadline=None)
@given(rosters(), drawn_facts())
def test_changes_touch_nothing_that_stays(found: Roster, facts: Facts) -> None:
    more = roster(CLUSTER, found.head, 2, (*found.members, worker(10, facts)))
    for each in found.members:
        old, new = plan(found, each.member), plan(more, each.member)
        there = changes(old, new)
        assert not changes(old, old)
        for difference in (there.sessions, there.listeners, there.wireguard, there.serves):
            assert not set(difference.gone) & set(difference.new)
        assert all(each.member == worker(10).member for each in there.listeners.new)
        assert not there.listeners.gone
        assert not there.wireguard.gone
        back = changes(new, old)
        assert (back.sessions.gone, back.sessions.new) == (there.sessions.new, there.sessions.gone)


def test_a_new_member_costs_a_worker_one_listener_and_one_session() -> None:
    before, after = cluster(worker(1)), cluster(worker(1), worker(2))
    there = changes(plan(before, worker(1).member), plan(after, worker(1).member))
    assert [each.member for each in there.listeners.new] == [worker(2).member]
    assert [each.member for each in there.sessions.new] == [worker(2).member]
    assert not any((there.listeners.gone, there.sessions.gone, there.moved, there.serves))


def test_new_endpoints_move_a_session_and_do_not_end_it() -> None:
    moved = worker(2, replace(facts_of(2), endpoints=(Endpoint("10.1.1.1", 9),)))
    there = changes(
        plan(cluster(worker(1), worker(2)), worker(1).member),
        plan(cluster(worker(1), moved), worker(1).member),
    )
    assert [each.endpoints for each in there.moved] == [(Endpoint("10.1.1.1", 9),)]
    assert not there.sessions


def test_who_can_be_dialled_is() -> None:
    far = replace(facts_of(1), endpoints=(Endpoint("10.0.0.2", 9),))
    hidden = replace(far, reachable=False)
    assert initiates(worker(1, hidden), worker(2, far))
    assert not initiates(worker(2, far), worker(1, hidden))
    assert initiates(worker(1, far), worker(2, far))
    assert initiates(worker(1, hidden), worker(2, hidden))


def test_a_loopback_address_can_be_dialled_on_its_machine_alone() -> None:
    far = replace(facts_of(1), endpoints=(Endpoint("10.0.0.2", 9),))
    local = replace(far, endpoints=(Endpoint("127.0.0.1", 9), Endpoint("::1", 9)))
    assert initiates(worker(2, local), worker(1, far))
    assert not initiates(worker(1, far), worker(2, local))
    assert initiates(worker(1, far), worker(2, replace(far, endpoints=local.endpoints + far.endpoints)))
    here = replace(local, machine=MACHINE)
    there = replace(here, reachable=False)
    assert initiates(worker(2, there), worker(1, here))


def test_a_worker_on_the_heads_machine_is_a_guest_that_needs_nothing() -> None:
    here = Facts(carriers=BOTH, machine=MACHINE)
    found = cluster(
        worker(1, here), worker(2), own=head(replace(facts_of(0), carriers=BOTH, machine=MACHINE))
    )
    guest, remote, own = (plan(found, each) for each in (worker(1).member, worker(2).member, CLUSTER))
    assert guest.guest
    assert not any((guest.serves, guest.listeners, guest.sessions))
    assert [each.member for each in own.serves] == [worker(1).member, CLUSTER]
    assert {each.through for each in remote.listeners} == {CLUSTER}
    assert len(remote.listeners) == 2


def test_two_workers_on_one_machine_without_the_head_are_not_direct() -> None:
    here = Facts(carriers=BOTH, machine=MACHINE)
    a, b = worker(1, here), worker(2, here)
    assert path(CLUSTER, a, b, head()).carrier is Carrier.OVERLAY


def test_wireguard_needs_somebody_who_is_reached_from_outside() -> None:
    reached, hidden = worker(1, REACHED), worker(2, WIRED)
    assert path(CLUSTER, head(REACHED), hidden).carrier is Carrier.WIREGUARD
    found = path(CLUSTER, head(WIRED), hidden)
    assert (found.carrier, found.reason) == (
        Carrier.OVERLAY,
        "WireGuard packets from outside reach neither of them",
    )
    assert path(CLUSTER, reached, hidden, head(REACHED)).carrier is Carrier.WIREGUARD
    assert path(CLUSTER, reached, hidden, head()).carrier is Carrier.WIREGUARD


def test_reasons_say_who_lacks_what() -> None:
    poor = worker(1, Facts(lacks=((Carrier.WIREGUARD, "it may not create interfaces"),)))
    found = path(CLUSTER, head(REACHED), poor)
    assert found.carrier is Carrier.OVERLAY
    assert found.reason == f"no WireGuard: peer {poor.peer.short}: it may not create interfaces"
    assert path(CLUSTER, head(), worker(1)).reason == "neither allows WireGuard"


def test_who_shares_no_carrier_has_no_path() -> None:
    found = path(CLUSTER, head(replace(WIRED, carriers=(Carrier.WIREGUARD,))), worker(1))
    assert found.carrier is None
    assert "no overlay" in found.reason


def test_who_is_not_in_the_roster_needs_nothing() -> None:
    assert plan(cluster(worker(1)), worker(2).member) == NOTHING
