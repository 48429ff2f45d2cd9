"""Whom a peer asks when it enters a swarm, in which order, and what it says when nobody answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from swarmp2p.dht.events import Join, QueryDone
from swarmp2p.engine import Address, PeerInfo
from swarmp2p.errors import AddressError, BootstrapError, DialError, PeerMismatch, StateFileError
from swarmp2p.identity import PeerId
from swarmp2p.joining import Joining, Targets
from swarmp2p.opening import open_peer
from swarmp2p.peer import Peer
from swarmp2p.scopes import background_nursery
from tests.dht.network import peer_id, peer_info
from tests.test_peer import Swarm

OWN = peer_id(0)


def at(number: int, port: int = 4001) -> str:
    return f"/ip4/10.0.0.{number}/tcp/{port}/p2p/{peer_id(number)}"


class World:
    """Peers that answer a dial after a while, or refuse (negative times), or answer a Join."""

    def __init__(self, dials: dict[int, float], joins: Sequence[int] = ()) -> None:
        self.dials = {peer_id(number): delay for number, delay in dials.items()}
        self.joins = {peer_id(number) for number in joins}
        self.dialled: list[tuple[float, PeerId]] = []
        self.asked: list[tuple[float, tuple[PeerId, ...], tuple[PeerId, ...]]] = []

    async def dial(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        self.dialled.append((trio.current_time(), peer))
        delay = self.dials.get(peer, math.inf)
        await trio.sleep(abs(delay))
        if delay < 0:
            raise DialError("there", f"refused after {-delay}", "start it")
        self.joins.add(peer)

    async def run(self, make: Callable[[int], Join]) -> QueryDone:
        join = make(1)
        peers = tuple(info.peer for info in join.peers)
        self.asked.append((trio.current_time(), peers, tuple(info.peer for info in join.later)))
        await trio.sleep(0.5)
        found = tuple(info for info in join.peers if info.peer in self.joins)
        if not found:
            await trio.sleep(4)
        return QueryDone(1, found)

    async def join(
        self, bootstrap: Sequence[str], remembered: Sequence[PeerInfo] = (), stay_s: float = 0.0
    ) -> float:
        """Join, stay for a while; returns when it had joined."""
        async with background_nursery() as nursery:
            targets = Targets.of(OWN, bootstrap, remembered, "the file")
            await Joining(targets, self.dial, self.run, nursery).join()
            joined = trio.current_time()
            await trio.sleep(stay_s)
        return joined


def numbers(peers: Sequence[PeerId]) -> list[int]:
    return [next(n for n in range(300) if peer_id(n) == peer) for peer in peers]


def test_an_address_given_twice_and_the_own_one_count_once() -> None:
    targets = Targets.of(
        OWN, [at(1), at(1), at(1, 5), at(0), at(2)], [peer_info(2), peer_info(3), peer_info(0)]
    )
    assert [(info.peer, len(info.addresses)) for info in targets.bootstrap] == [
        (peer_id(1), 2),
        (peer_id(2), 1),
    ]
    assert [info.peer for info in targets.remembered] == [peer_id(3)]
    with pytest.raises(AddressError):
        Targets.of(OWN, ["/ip4/10.0.0.1/tcp/1"])


async def test_the_first_that_answers_is_enough_and_the_others_are_dialled_on(
    autojump_clock: MockClock,
) -> None:
    world = World({1: -0.1, 2: 0.3, 3: 5.0, 4: math.inf})
    start = trio.current_time()
    joined = await world.join([at(1), at(2), at(3), at(4)], stay_s=10)
    assert joined - start == pytest.approx(0.3 + 0.5, abs=0.1)
    assert [(numbers(peers), numbers(later)) for _, peers, later in world.asked] == [([2], [1, 3, 4])]
    assert peer_id(3) in world.joins, "a peer that took longer was given up"


async def test_alone_with_itself_it_starts_a_swarm_of_its_own(autojump_clock: MockClock) -> None:
    world = World({})
    await world.join([at(0)])
    await world.join([])
    assert (world.dialled, world.asked) == ([], [])


async def test_when_nobody_answers_the_error_says_who_and_why(autojump_clock: MockClock) -> None:
    world = World({1: -0.1, 2: -0.2})
    with pytest.raises(BootstrapError) as caught:
        await world.join([at(1), at(2)])
    text = str(caught.value)
    assert (
        f"{at(1)}: refused after 0.1; {at(2)}: refused after 0.2; check that one of these peers runs" in text
    )
    assert "was not started" in text


async def test_the_error_of_a_single_bootstrap_peer_is_its_own(autojump_clock: MockClock) -> None:
    class Mismatch(World):
        async def dial(self, peer: PeerId, addresses: Sequence[Address]) -> None:
            raise PeerMismatch("there", "another peer answers", "correct the id")

    with pytest.raises(PeerMismatch):
        await Mismatch({}).join([at(1)])


async def test_a_bootstrap_peer_with_another_id_does_no_harm_beside_a_right_one(
    autojump_clock: MockClock,
) -> None:
    class Mismatch(World):
        async def dial(self, peer: PeerId, addresses: Sequence[Address]) -> None:
            if peer == peer_id(1):
                raise PeerMismatch("there", "another peer answers", "correct the id")
            await super().dial(peer, addresses)

    world = Mismatch({2: 0.1})
    await world.join([at(1), at(2)])
    assert [numbers(peers) for _, peers, _ in world.asked] == [[2]]


async def test_remembered_peers_are_not_asked_while_bootstrap_peers_answer(autojump_clock: MockClock) -> None:
    world = World({1: 1.9}, joins=[7])
    await world.join([at(1)], [peer_info(7)])
    assert [numbers(peers) for _, peers, _ in world.asked] == [[1]]


@pytest.mark.parametrize(("answer", "after"), [(-0.1, 0.1), (math.inf, 2.0)])
async def test_remembered_peers_are_asked_when_no_bootstrap_peer_answers(
    autojump_clock: MockClock, answer: float, after: float
) -> None:
    world = World({1: answer}, joins=[7])
    start = trio.current_time()
    await world.join([at(1)], [peer_info(7), peer_info(8)])
    ((when, peers, later),) = world.asked
    assert when - start == pytest.approx(after, abs=0.1)
    assert (numbers(peers), numbers(later)) == ([7, 8], [1])


async def test_a_late_bootstrap_peer_is_taken_when_no_remembered_one_answers(
    autojump_clock: MockClock,
) -> None:
    world = World({1: 8.0})
    await world.join([at(1)], [peer_info(7)])
    assert [numbers(peers) for _, peers, _ in world.asked] == [[7], [1]]


async def test_remembered_peers_are_asked_in_rounds_up_to_a_limit(autojump_clock: MockClock) -> None:
    world = World({1: -0.1})
    with pytest.raises(BootstrapError, match="nor did any of 96 peers answer that the file"):
        await world.join([at(1)], [peer_info(number) for number in range(2, 202)])
    assert [numbers(peers) for _, peers, _ in world.asked] == [
        list(range(2, 34)),
        list(range(34, 66)),
        list(range(66, 98)),
    ]


async def test_with_nothing_but_remembered_peers_that_are_gone_it_starts_alone_soon(
    autojump_clock: MockClock,
) -> None:
    world = World({})
    start = trio.current_time()
    assert await world.join([], [peer_info(7)]) - start <= 5.1


# Whole peers ------------------------------------------------------------------------------------------------


def with_state(swarm: Swarm, index: int, state: Path, *bootstrap: str) -> AbstractAsyncContextManager[Peer]:
    """A peer of the swarm with a state file."""
    identity = swarm.identity(index)
    network = swarm.switch.join(identity.peer_id)
    return open_peer(identity=identity, network=network, bootstrap=bootstrap, state=state)


async def test_a_swarm_whose_seeds_are_all_gone_is_entered_through_remembered_peers(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    swarm = Swarm()

    def state(index: int) -> Path:
        return tmp_path / f"state {index}"

    async with swarm.peer(1) as first, swarm.peer(2, (str(first.addresses[0]),)) as second:
        async with swarm.peer(0, (str(first.addresses[0]),)) as seed:
            address = str(seed.addresses[0])
            async with with_state(swarm, 3, state(3), address) as third:
                assert third.dht.storage.state == "ok"
                assert {entry.peer for entry in third.dht.table} == {seed.id, first.id, second.id}
        # The seed is gone.
        async with with_state(swarm, 3, state(3), address) as third:
            assert third.dht.storage.restored >= 3
            assert {first.id, second.id} <= {entry.peer for entry in third.dht.table}
        async with with_state(swarm, 3, state(3)) as third:
            assert {first.id, second.id} <= {entry.peer for entry in third.dht.table}
    with pytest.raises(BootstrapError, match=r"nor did any of \d peers answer that .*state 3 remembers"):
        async with with_state(swarm, 3, state(3), address):
            pass
    async with with_state(swarm, 3, state(3)) as third:
        assert third.dht.table == ()
    async with swarm.peer(4) as fourth:
        assert fourth.dht.storage.state == "off"


async def test_held_records_are_served_after_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    swarm = Swarm()
    async with with_state(swarm, 1, tmp_path / "state") as holder:
        async with swarm.peer(2, (str(holder.addresses[0]),)) as provider:
            await provider.dht.provide(b"key")
            await provider.dht.put(b"/a/b", b"value")
            provider_id = provider.id
    async with with_state(swarm, 1, tmp_path / "state") as holder:
        async with swarm.peer(3, (str(holder.addresses[0]),)) as finder:
            found = [found.id async for found in finder.dht.find_providers(b"key")]
            assert found == [provider_id]
            assert await finder.dht.get(b"/a/b") == b"value"


async def test_two_peers_cannot_have_one_state_file(autojump_clock: MockClock, tmp_path: Path) -> None:
    swarm = Swarm()
    async with with_state(swarm, 1, tmp_path / "state"):
        with pytest.raises(StateFileError, match="another peer has it open"):
            async with with_state(swarm, 2, tmp_path / "state"):
                pass
