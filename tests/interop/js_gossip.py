"""js-libp2p's gossipsub as the other party of a test: js/pubsub.mjs, in a node of js_peers.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from swarmp2p.identity import PeerId
from tests.interop.js_peers import JsPeer, JsPeers


@dataclass(frozen=True, slots=True)
class JsMessage:
    """What a js node received. sha256: of its data, of `size` bytes. sender: who relayed it. at: Unix seconds."""

    topic: str
    source: PeerId
    seqno: int
    size: int
    sha256: bytes
    sender: PeerId
    at: float

    def carries(self, data: bytes) -> bool:
        """Whether these are its data."""
        return self.sha256 == hashlib.sha256(data).digest()


class JsGossip:
    """The gossipsub of one js node."""

    def __init__(self, node: JsPeer) -> None:
        self.node = node
        self.id, self.address = node.id, node.address

    @classmethod
    async def start(
        cls,
        peers: JsPeers,
        settings: Mapping[str, object] | None = None,
        *,
        seed: bytes | None = None,
        port: int = 0,
    ) -> JsGossip:
        """Start a node. settings: `versions`, a list of protocol ids, and those of @libp2p/gossipsub: D, Dlo, Dhi,
        doPX and so on."""
        return cls(await peers.start(seed=seed, port=port, gossip=settings or {}))

    async def dial(self, address: object) -> None:
        """Connect to a peer."""
        await self.node.dial(address)

    async def subscribe(self, topic: str) -> None:
        """Join a topic."""
        await self.node.call("subscribe", topic=topic)

    async def unsubscribe(self, topic: str) -> None:
        """Leave a topic."""
        await self.node.call("unsubscribe", topic=topic)

    async def publish(self, topic: str, data: bytes) -> int:
        """Publish; to how many peers it went at once."""
        return cast(int, await self.node.call("publish", topic=topic, data=data.hex()))

    async def messages(self, after: int = 0) -> list[JsMessage]:
        """What it received, from the `after`-th message on; at most 1,000."""
        return [_message(entry) for entry in await self.node.call("messages", after=after)]

    async def has(self, data: bytes, source: PeerId | None = None) -> bool:
        """Whether it received these data, from that publisher."""
        return any(m.carries(data) and source in (None, m.source) for m in await self.messages())

    async def received(self) -> int:
        """How many messages it received."""
        return cast(int, await self.node.call("received"))

    async def mesh(self, topic: str) -> set[PeerId]:
        """Who is in its mesh of a topic."""
        return {PeerId.from_text(peer) for peer in await self.node.call("mesh", topic=topic)}

    async def subscribers(self, topic: str) -> set[PeerId]:
        """Who subscribes to a topic, as far as it knows."""
        return {PeerId.from_text(peer) for peer in await self.node.call("subscribers", topic=topic)}

    async def score(self, peer: PeerId) -> float:
        """How it scores a peer."""
        return cast(float, await self.node.call("score", peer=str(peer)))

    async def unwanted(self, peer: PeerId) -> int:
        """How many message ids a peer told it that it does not want."""
        return cast(int, await self.node.call("unwanted", peer=str(peer)))

    async def rpc(self, peer: PeerId, rpc: bytes) -> None:
        """Send a connected peer an RPC as it is."""
        await self.node.call("rpc", peer=str(peer), rpc=rpc.hex())

    async def connected(self) -> set[PeerId]:
        """Who is connected."""
        return {PeerId.from_text(peer) for peer in await self.node.call("connected")}

    async def record(self, peer: PeerId) -> tuple[bytes, list[str]]:
        """A peer's signed record, once verified, and the addresses that it certifies; empty without one."""
        known = cast(dict[str, Any], await self.node.call("peerRecord", peer=str(peer)))
        return bytes.fromhex(known["envelope"] or ""), known["certified"]

    async def stop(self) -> None:
        """End the node."""
        await self.node.stop()


def _message(entry: dict[str, Any]) -> JsMessage:
    return JsMessage(
        entry["topic"],
        PeerId.from_text(entry["from"]),
        int(entry["seqno"]),
        entry["size"],
        bytes.fromhex(entry["sha256"]),
        PeerId.from_text(entry["sender"]),
        entry["at"] / 1000,
    )
