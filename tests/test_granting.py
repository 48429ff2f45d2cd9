"""Granting in virtual time: who may borrow by whose grant, and how a revocation gets to lenders, soon or late."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from swarmp2p import open_peer
from swarmp2p.errors import GrantError, NotEnoughWorkers, UsageError
from swarmp2p.grant_file import GrantFile, grants_path
from swarmp2p.identity import Identity, verify
from swarmp2p.invite import Invite
from swarmp2p.node import topic_key
from swarmp2p.ray_bridge.events import Offer
from swarmp2p.ray_bridge.grant_terms import Terms
from swarmp2p.ray_bridge.grants import Grant
from swarmp2p.ray_bridge.revocations import (
    grant_name,
    read_revocations,
    revocation_key,
    revocation_topic,
    revoke,
)
from swarmp2p.scopes import background_nursery
from tests import test_market
from tests.test_market import FakeHead, Ray, ids
from tests.test_peer import Swarm

ray = test_market.ray  # the fixture: heads and workers are only said to run


# Giving and using -------------------------------------------------------------------------------------------------


async def test_a_grant_opens_every_lender_that_trusts_its_owner(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(4) as (owner, borrower, lender, other):
        grant = owner.grant(borrower.id, cpus=2, leases=1)
        held = await borrower.hold(grant.text)
        assert borrower.grants == (held,)
        async with (
            lender.lend(grantors=[owner.id]),
            other.lend(grantors=[str(other.id)]),
            borrower.borrow(workers=2, min_workers=1) as cluster,
        ):
            assert ids(cluster) == {str(lender.id)}
            assert ray.secrets == [FakeHead.secret]
            await trio.sleep(5)
            (reason,) = [why for who, why in cluster.refusals if who == other.id]
            assert "has not allowed" in reason, "a grant is shown only where it may count"


async def test_a_lenders_own_grants_count_without_being_told(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(3) as (lender, borrower, friend), lender.lend():
        grant = lender.grant(borrower.id)
        passed = borrower.grant(friend.id, under=grant, cpus=1)
        assert passed.owner == lender.id
        async with friend.borrow(workers=1, grants=[passed.text]) as cluster:
            assert ids(cluster) == {str(lender.id)}


async def test_a_ticket_is_for_whoever_has_it(autojump_clock: MockClock, ray: Ray) -> None:
    async with Swarm().of(3) as (lender, one, other), lender.lend(Offer(max_leases=2, cpus=2)):
        ticket = lender.grant(None, leases=2)
        assert ticket.is_ticket
        async with one.borrow(grants=ticket), other.borrow(grants=ticket.text) as cluster:
            assert ids(cluster) == {str(lender.id)}
        narrowed = one.grant(other.id, under=ticket, cpus=0.5)
        assert (len(narrowed.links), narrowed.terms.cpus) == (3, 0.5)


async def test_what_cannot_be_granted(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (owner, other):
        grant = owner.grant(other.id, cpus=2, expires_in_s=60)
        for wrong in (
            {"under": grant},  # the owner does not hold it
            {"expires_in_s": 0},
            {"expires_in_s": 400 * 86_400},
            {"cpus": -1},
            {"lenders": ["nobody"]},
        ):
            with pytest.raises(UsageError):
                owner.grant(other.id, **wrong)  # pyright: ignore
        with pytest.raises(UsageError, match="can only be narrowed"):
            other.grant(owner.id, under=grant, cpus=3)
        with pytest.raises(UsageError, match="can only be narrowed"):
            other.grant(owner.id, under=grant, expires_in_s=61)
        with pytest.raises(GrantError, match="copy it again"):
            other.grant(owner.id, under="grant1_xyz")
        with pytest.raises(GrantError, match="ask for one for this peer"):
            await owner.hold(grant)
        with pytest.raises(UsageError, match="only that peer can use it"):
            async with owner.borrow(grants=[grant]):
                pass
        await trio.sleep(61)
        with pytest.raises(GrantError, match="expired"):
            await other.hold(grant)


async def test_a_grant_is_over_when_it_is_over(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(2) as (lender, borrower),
        lender.lend(),
        borrower.borrow(grants=lender.grant(borrower.id, lease_s=30)) as cluster,
    ):
        began = trio.current_time()
        while cluster.workers:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.5)
        assert 20 < trio.current_time() - began <= 31
        assert any("grant is over" in reason for _, reason in cluster.refusals)


# Revoking ---------------------------------------------------------------------------------------------------------


async def gone_within(ray: Ray, seconds: float) -> None:
    with trio.fail_after(seconds):
        while ray.workers:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.1)


@pytest.mark.parametrize("what", ["grant", "peer", "everything"])
async def test_a_revocation_ends_workers_elsewhere(autojump_clock: MockClock, ray: Ray, what: str) -> None:
    async with (
        Swarm().of(5) as (_, owner, borrower, *lenders),
        lenders[0].lend(grantors=[owner.id]),
        lenders[1].lend(grantors=[owner.id]),
    ):
        await trio.sleep(5)
        grant = owner.grant(borrower.id)
        async with borrower.borrow(workers=2, grants=grant) as cluster:
            assert len(ray.workers) == 2
            if what == "grant":
                done = await owner.revoke(grant)
            elif what == "peer":
                done = await owner.revoke(borrower.id)
            else:
                done = await owner.revoke(everything=True)
            assert done.told == 2
            await gone_within(ray, 1)
            assert all("revoked" in reason for _, reason in cluster.refusals)
            again = owner.grant(borrower.id, cpus=1)
            async with borrower.borrow(workers=2, grants=again):
                assert len(ray.workers) == 2, "a new grant counts"


async def test_one_that_comes_late_learns_it_from_the_dht(autojump_clock: MockClock, ray: Ray) -> None:
    swarm = Swarm()
    async with swarm.of(4) as (_, keeper, borrower, lender):
        async with swarm.peer(9, (str(keeper.addresses[0]),)) as owner:
            grant = owner.grant(borrower.id)
            done = await owner.revoke(grant)
            assert done.told == 0
            assert done.stored >= 3
            grantor = owner.id
        async with lender.lend(grantors=[grantor]):
            await trio.sleep(15)
            with pytest.raises(NotEnoughWorkers, match="revoked"):
                async with borrower.borrow(grants=grant, timeout_s=20):
                    pass


async def test_one_that_was_cut_off_learns_it_when_it_is_back(autojump_clock: MockClock, ray: Ray) -> None:
    swarm = Swarm()
    async with (
        swarm.of(5) as (first, owner, borrower, lender, keeper),
        lender.lend(grantors=[owner.id]),
        keeper.lend(grantors=[owner.id]),
        borrower.borrow(lenders=[lender.id], grants=owner.grant(borrower.id)),
    ):
        await trio.sleep(5)
        near = {lender.id: 1, borrower.id: 1}
        swarm.partition.split(
            {peer.id: near.get(peer.id, 0) for peer in (first, owner, borrower, lender, keeper)}
        )
        await owner.revoke(borrower.id)
        await trio.sleep(10)
        assert set(ray.workers) == {str(lender.id)}, "nobody could tell it"
        swarm.partition.heal()
        await gone_within(ray, 200)


async def test_the_own_list_also_ends_what_was_allowed_by_name(autojump_clock: MockClock, ray: Ray) -> None:
    async with (
        Swarm().of(2) as (lender, borrower),
        lender.lend(allow=[borrower.id]) as lending,
        borrower.borrow(),
    ):
        assert ray.workers
        await lender.revoke(borrower.id)
        await gone_within(ray, 1)
        assert lending.allowed == frozenset()
        await trio.sleep(60)
        assert not ray.workers


async def test_an_owner_that_lost_its_list_finds_it_again(autojump_clock: MockClock) -> None:
    swarm, owner = Swarm(), Identity(b"o" * 32)
    async with swarm.of(4) as (first, other, *_):
        old, new = first.grant(other.id, owner=owner), first.grant(other.id, cpus=1, owner=owner)
        await first.revoke(old, owner=owner)
        await other.revoke(new, owner=owner)  # knows nothing of it
        stored = await first.dht.get(revocation_key(owner.peer_id))
        told = read_revocations(stored, owner.peer_id, verify)
        assert {name for name, _ in told.entries} == {grant_name(old.id), grant_name(new.id)}


async def test_what_cannot_be_revoked(autojump_clock: MockClock) -> None:
    async with Swarm().of(2) as (owner, other):
        grant = owner.grant(other.id)
        with pytest.raises(UsageError, match="only its owner can revoke"):
            await other.revoke(grant)
        with pytest.raises(UsageError, match="nothing is named"):
            await owner.revoke()
        with pytest.raises(UsageError):
            await owner.revoke("nobody")


async def test_nobody_floods_an_owners_topic(autojump_clock: MockClock, ray: Ray) -> None:
    """Lists of others, and old ones, are not passed on; lenders stay with what is true."""
    async with (
        Swarm().of(4) as (_, owner, mallory, lender),
        lender.lend(grantors=[owner.id]),
    ):
        await trio.sleep(5)
        topic = revocation_topic(owner.id)
        sources: dict[str, None] = {}
        async with lender.subscribe(topic) as heard, background_nursery() as nursery:

            async def listen() -> None:
                async for message in heard:
                    sources[str(message.source)] = None

            nursery.start_soon(listen)
            await mallory.revoke(lender.id, owner=Identity(b"m" * 32))
            await mallory.publish(topic, b"junk" * 100)
            first = await owner.revoke(mallory.id)
            await mallory.publish(topic, forged_list())
            second = await owner.revoke(everything=True)
            assert second.sequence > first.sequence
            await trio.sleep(5)
        assert sources == {str(owner.id): None}


def forged_list() -> bytes:
    return revoke(Identity(b"m" * 32), None, 2e9, everything=True).envelope


# Keeping ----------------------------------------------------------------------------------------------------------


async def test_grants_and_lists_outlast_a_restart(tmp_path: Path) -> None:
    state, key = tmp_path / "state", tmp_path / "key"
    owner = Identity(b"o" * 32)
    async with open_peer(identity=key, state=state, listen=()) as peer:
        held = await peer.hold(peer.grant(None, owner=owner))
        with trio.move_on_after(30):
            await peer.revoke("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")
        assert (grants_path(state).stat().st_mode & 0o777) == 0o600
    async with open_peer(identity=key, state=state, listen=()) as peer:
        assert peer.grants == (held,)
        done = await peer.revoke(everything=True)
        kept = GrantFile(grants_path(state)).read()
        assert [one.sequence for one in kept.lists] == [done.sequence]


async def test_an_invite_brings_a_grant(tmp_path: Path) -> None:
    async with open_peer() as owner:
        invite = owner.invite(grant=owner.grant(None, cpus=1))
        assert invite.secret
        assert invite.grant is not None
        async with open_peer(bootstrap=invite) as newcomer:
            (grant,) = newcomer.grants
            assert (grant.owner, grant.holder, grant.terms.cpus) == (owner.id, newcomer.id, 1)
        with pytest.raises(UsageError, match="not both"):
            owner.invite(grant=owner.grant(None), capability=b"x")
        plain = Invite.parse(owner.invite(capability=b"my own").text)
        assert plain.grant is None


def test_a_file_is_read_whatever_is_in_it(tmp_path: Path) -> None:
    owner = Identity(b"o" * 32)
    file = GrantFile(tmp_path / "grants")
    assert file.read().held == ()
    assert file.stamp() == (0, 0)
    grant = Grant.issue(owner, owner.peer_id, Terms(expires=1.9e9 + 60), 1.9e9)
    first = revoke(owner, None, 1.9e9, grants=[grant.id])
    second = revoke(owner, first, 1.9e9 + 1, everything=True)
    file.add(1.9e9, [grant], [second])
    file.add(1.9e9, [], [first])
    stamp = file.stamp()
    assert file.read().lists == (second,)
    file.add(1.9e9, [grant])
    assert file.stamp() == stamp, "nothing new, nothing written"
    with open(file.path, "ab") as damaged:
        damaged.write(b"held grant1_junk\nrevoked x y\nrevoked 12D3KooW zz\n\xff\xfe\nheld\n")
    assert (file.read().held, file.read().lists) == ((grant,), (second,))
    file.add(1.9e9 + 61, [])
    assert file.read().held == (), "it has expired"


def test_names() -> None:
    owner = Identity(b"o" * 32).peer_id
    assert revocation_key(owner).startswith(b"/swarm-revoked/")
    assert len(topic_key(revocation_topic(owner))) == 34
