"""What it costs one node to follow the load signals of many providers.

The node (a whole NodeEngine over a libp2p host) runs in a process of its own, whose CPU is measured. This process
plays its neighbours: six hosts (D), each in its mesh. Every provider's signal, signed with its own key, comes once a
second from one of them, and from three others a moment later, as in a mesh ("about 3 duplicates a message in
practice"); the node verifies it, puts it into its load table and forwards it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Final

import trio
from multiaddr.multiaddr import Multiaddr

from swarmp2p.driver import Driver
from swarmp2p.engine import NetworkEvent
from swarmp2p.gossip.codec import pubsub_protocol
from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.load import LOAD_TOPIC, LoadSignal, encode_signal
from swarmp2p.gossip.load_events import FollowLoads
from swarmp2p.gossip.messages import Rpc
from swarmp2p.gossip.wire import StrictSign
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.node import NodeCommand, NodeEngine, NodeOutput
from swarmp2p.opening import node_protocols
from swarmp2p.ray_bridge.auth import LeaseKeys
from swarmp2p.scopes import background_nursery, start
from swarmp2p.transport.addresses import split_address
from swarmp2p.transport.host import Host

from .libp2p_hosts import LOOPBACK
from .line_worker import LineWorker, orders, tell
from .report import Figures, Meter

_NEIGHBOURS: Final = 6
_COPIES: Final = 4
_STEP_S: Final = 0.02  # what a neighbour gathers before it sends, as our routers do with load signals
_SETTLE_S: Final = 3.0


async def signals(providers: int, seconds: float) -> Figures:
    """core_share: CPU of the node's process to wall time. taken: of the signals sent, those in its table."""
    async with background_nursery() as nursery:
        node = await LineWorker.start("benchmarks.gossip_signals")
        try:
            address = str((await node.answer())["address"])
            peer, _ = split_address(address)
            neighbours: list[Host] = []
            for _ in range(_NEIGHBOURS):
                host = Host(Identity.generate(), [LOOPBACK], [pubsub_protocol()])
                await start(nursery, host.run, _ignore)
                await host.dial(address)
                host.send(peer, Rpc(subscriptions=((LOAD_TOPIC, True),), graft=(LOAD_TOPIC,)))
                neighbours.append(host)
            sender = _Sender(providers, neighbours, peer)
            await sender.run(_SETTLE_S)  # until every provider is known, and the node's meshes stand
            before = await node.ask({"measure": True})
            sent = await sender.run(seconds)
            after = await node.ask({"measure": True})
        finally:
            node.end()
    wall_s = after["wall_s"] - before["wall_s"]
    return {
        "core_share": (after["cpu_s"] - before["cpu_s"]) / wall_s,
        "taken": (after["updated"] - before["updated"]) / sent,
        "signals_per_s": sent / wall_s,
        "cpu_ms_per_signal": 1000 * (after["cpu_s"] - before["cpu_s"]) / sent,
    }


def _ignore(_event: NetworkEvent) -> None:
    pass


class _Sender:
    """Sends all providers' signals, spread evenly over each second."""

    def __init__(self, providers: int, neighbours: list[Host], to: PeerId) -> None:
        self._keys = [Identity.generate() for _ in range(providers)]
        self._neighbours, self._to = neighbours, to
        self._rng = random.Random(1)
        self._sequence = time.time_ns()

    async def run(self, seconds: float) -> int:
        """For so long; returns how many signals went out, copies not counted."""
        began_s, sent = time.perf_counter(), 0
        late: list[tuple[int, GossipMessage]] = []
        for step in range(round(seconds / _STEP_S)):
            await trio.sleep(max(0.0, began_s + step * _STEP_S - time.perf_counter()))
            waiting: list[list[GossipMessage]] = [[] for _ in self._neighbours]
            for neighbour, message in late:
                waiting[neighbour].append(message)
            late = []
            due = round(len(self._keys) * (step + 1) * _STEP_S)
            for number in range(sent, due):
                first, *others = self._rng.sample(range(_NEIGHBOURS), _COPIES)
                message = self._signal(self._keys[number % len(self._keys)])
                waiting[first].append(message)
                late.extend((other, message) for other in others)
            sent = due
            for host, messages in zip(self._neighbours, waiting, strict=True):
                if messages:
                    host.send(self._to, Rpc(publish=tuple(messages)))
        await trio.sleep(2 * _STEP_S)
        return sent

    def _signal(self, key: Identity) -> GossipMessage:
        self._sequence += 1
        now = time.time()
        signal = LoadSignal(
            cpus_free=self._rng.uniform(0, 64),
            memory_free_bytes=self._rng.randrange(1 << 37),
            gpus_free=1.0,
            in_flight=self._rng.randrange(32),
            leases=2,
            latency_s=0.02,
            kind="workstation",
            region="eu-west",
            sequence=self._sequence,
            expires=now + 60,
            heartbeat_s=10.0,
        )
        seqno = self._sequence.to_bytes(8, "big")
        return StrictSign().make(key.peer_id, LOAD_TOPIC, encode_signal(signal), seqno, key.sign)


async def _node() -> None:
    """The node, in its own process."""
    identity = Identity.generate()
    keys = LeaseKeys(identity.sign, verify, identity.seal_to, identity.open_sealed, os.urandom)
    engine = NodeEngine(identity.peer_id, keys, random.Random(1))
    host = Host(identity, [LOOPBACK], node_protocols())
    driver: Driver[NodeCommand, NodeOutput] = Driver(engine, host)
    meter = Meter()
    async with background_nursery() as nursery:
        await start(nursery, driver.run)
        driver.post(FollowLoads())
        tell({"address": f"{Multiaddr(host.addresses[0])}/p2p/{host.peer_id}"})
        async for _ in orders():
            tell({"wall_s": meter.elapsed_s, "cpu_s": meter.cpu_s, "updated": engine.loads.stats.updated})
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    trio.run(_node)
