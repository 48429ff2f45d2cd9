from __future__ import annotations

import json
import math
from random import Random

import pytest

from simulations import gossip_spread
from simulations.gossip_spread import Sizes
from simulations.gossip_swarm import TOPIC, Deliveries, GossipSwarm
from simulations.graphs import regular_graph
from simulations.regions import REGIONS, SHARES, RegionLink, one_way_s
from simulations.uplink import Uplink, rpc_bytes
from swarmp2p.engine import Received, Send, Tick
from swarmp2p.gossip.events import Delivered, GossipMessage, Subscribe
from swarmp2p.gossip.messages import Rpc
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim_peers import sim_peer

from ..gossip.network import message, peer_id, router

SMALL = Sizes(nodes=60, world=40, lossy_nodes=40, messages=8, world_messages=3, churn_interval_s=0.1)


def test_times_are_what_latency_alone_allows() -> None:
    outcome = gossip_spread.plain(150, 1, 20)
    assert outcome.spread.share == 1.0
    assert outcome.spread.delivered == 20 * 149
    assert outcome.bound_ms("flooding", 0.99) <= outcome.spread.ms(0.99)
    assert outcome.spread.ms(0.99) <= 1.1 * outcome.bound_ms("ideal", 0.99)
    assert outcome.spread.ms(0.99) <= 1.02 * outcome.bound_ms("mesh", 0.99)


def test_large_messages_reach_the_whole_world_and_uplinks_take_time() -> None:
    fast, slow = (gossip_spread.world(60, 1, 3, uplink_bytes_s=rate) for rate in (1e9, 5e6))
    assert fast.spread.share == slow.spread.share == 1.0
    assert slow.spread.ms(0.5) > fast.spread.ms(0.5) + 19.0  # a copy takes 20 ms


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_links_lose_30_percent_messages_still_come(seed: int) -> None:
    assert gossip_spread.lossy(100, seed, 20, 0.3).spread.share >= 0.999


def test_under_churn_nobody_who_stays_misses_anything() -> None:
    spread = gossip_spread.churning(80, 1, 20, 0.1).spread
    assert spread.share == 1.0
    assert spread.delivered < 20 * 79  # of those who left in time nothing is expected


def test_the_script_reports_all_and_repeats() -> None:
    first, second = (gossip_spread.run(3, SMALL, (0.3,))[0] for _ in range(2))
    assert first | {"wall_s": 0} == second | {"wall_s": 0}
    assert first["plain_delivered"] == first["world_delivered"] == first["loss_30pct_delivered"] == 1.0


def test_the_script_prints_a_table_and_draws(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    picture = tmp_path_factory.mktemp("spread") / "spread.png"
    gossip_spread.main(
        ["--nodes", "30", "--world", "25", "--messages", "2", "--losses", "0.2", "--png", str(picture)]
    )
    assert picture.stat().st_size > 1000
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss_20pct_nodes"] == 30


@pytest.mark.parametrize(
    "arguments", [["--nodes", "20"], ["--losses", "1"], ["--churn-interval", "0"], ["--messages", "0"]]
)
def test_sizes_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gossip_spread.main(arguments)


def test_deliveries_count_those_who_were_there_and_stayed() -> None:
    deliveries, (a, b, c, late) = Deliveries(), map(sim_peer, range(4))
    number = deliveries.published(a, 1.0, [a, b, c])
    deliveries.delivered(number, b, 1.5)
    deliveries.delivered(number, b, 9.0)
    deliveries.delivered(number, late, 2.0)
    spread = deliveries.spread()
    assert (spread.delivered, spread.missed, spread.whole, list(spread.took_s)) == (1, 1, 0, [0.5])
    assert spread.share == 0.5
    deliveries.left(c)
    assert deliveries.spread().share == deliveries.spread().whole == 1


def test_a_swarm_connects_as_it_is_told_and_meshes_are_made_of_these_links() -> None:
    swarm = GossipSwarm(40, 1, UniformLink(0.01))
    graph = regular_graph(40, 10, Random(1))
    swarm.connect(graph)
    swarm.sim.run(3.0)
    linked = {frozenset(pair) for pair in graph}
    meshes = swarm.meshes()
    assert all(frozenset((a, b)) in linked for a, mesh in enumerate(meshes) for b in mesh)
    assert min(map(len, meshes)) >= swarm.config.mesh_low
    assert all(len(swarm.router(peer).subscribers(TOPIC)) == 10 for peer in swarm.peers)


def test_regions_have_delays_both_ways_and_shares_that_make_a_whole() -> None:
    assert math.isclose(sum(SHARES), 1.0)
    places = range(len(REGIONS))
    assert len(SHARES) == len(REGIONS)
    assert all(one_way_s(a, b) == one_way_s(b, a) >= one_way_s(a, a) for a in places for b in places)
    link = RegionLink({sim_peer(0): 0, sim_peer(1): 1}, 0.1)
    delays = [link.delay(0.0, sim_peer(0), sim_peer(1), Random(seed)) for seed in range(50)]
    assert all(delay is not None and 0.0405 <= delay <= 0.0495 for delay in delays)


def test_an_uplink_lets_copies_out_one_after_the_other() -> None:
    engine = router(0)
    uplink = Uplink(engine, 1000.0)
    uplink.handle(Subscribe("t"), 0.0)
    for number in (1, 2, 3):
        hello = Rpc(subscriptions=(("t", True),), graft=("t",))
        uplink.handle(Received(peer_id(number), hello), 0.0)
    uplink.handle(Tick(), 50.0)  # all that was said so far is out
    uplink.handle(Tick(), 99.0)
    sent: list[tuple[float, Send]] = []
    heard = message(1, 1, data=b"x" * 1000)
    out = list(uplink.handle(Received(peer_id(1), Rpc(publish=(heard,))), 99.0))
    assert [type(output) for output in out] == [Delivered]  # the application hears of it at once
    while uplink.deadline() < 120.0:
        now = uplink.deadline()
        sent += [(now, output) for output in uplink.handle(Tick(), now) if isinstance(output, Send)]
    times = [at - 99.0 for at, send in sent if isinstance(send.message, Rpc) and send.message.publish]
    assert len(times) == 2
    assert times[1] - times[0] == pytest.approx(rpc_bytes(Rpc(publish=(heard,))) / 1000.0)
    assert times[0] >= 1.0


def test_bytes_of_an_rpc_follow_its_data() -> None:
    def size(data: bytes) -> int:
        return rpc_bytes(Rpc(publish=(GossipMessage(peer_id(1), b"12345678", "t", data),)))

    assert size(b"x" * 5000) - size(b"") == 5000
