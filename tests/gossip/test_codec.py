"""The codec: what wire.py says, whatever came before, and bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import BadMessage
from swarmp2p.gossip import codec as codec_module
from swarmp2p.gossip import wire
from swarmp2p.gossip.codec import Codec, pubsub_protocol
from swarmp2p.gossip.messages import Rpc
from swarmp2p.gossip.wire import IDS, StrictSign
from swarmp2p.wire import Exchange, Framing

from .network import peer_id, stub_sign
from .strategies import rpcs, signed_messages

SENDER = peer_id(1)


def lone(number: int, size: int = 10) -> Rpc:
    data = number.to_bytes(size, "big")
    return Rpc(publish=(StrictSign().make(SENDER, "t", data, bytes(8), stub_sign),))


def test_protocol() -> None:
    protocol = pubsub_protocol()
    assert protocol.name == Rpc.protocol
    assert protocol.ids == IDS == ("/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0")
    assert (protocol.exchange, protocol.framing) == (Exchange.MESSAGES, Framing.UVARINT)
    assert protocol.max_frame_bytes == 1 << 20
    assert protocol.decode(SENDER, protocol.encode(Rpc()), 0) == Rpc()


@given(
    st.lists(rpcs | signed_messages().map(lambda message: Rpc(publish=(message,))), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=12),
)
def test_results_do_not_depend_on_what_came_before(some: list[Rpc], order: list[int]) -> None:
    codec = Codec()
    for place in order:
        rpc = some[place % len(some)]
        body = wire.encode(rpc)
        assert codec.encode(rpc) == body
        assert codec.decode(SENDER, body) == wire.decode(SENDER, body)


def test_copies_of_a_message_are_one_object_and_its_rpc_too() -> None:
    codec, rpc = Codec(), lone(1)
    first = codec.decode(SENDER, wire.encode(rpc))
    assert codec.decode(peer_id(2), wire.encode(rpc)) is first
    beside = codec.decode(SENDER, wire.encode(Rpc(publish=(*rpc.publish, *lone(2).publish))))
    assert beside.publish[0] is first.publish[0]


def test_bad_bytes_are_bad_each_time() -> None:
    codec = Codec()
    for _ in range(3):
        with pytest.raises(BadMessage):
            codec.decode(SENDER, b"\x12\x02\xff\xff")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_KEPT", 4)
    codec, bodies = Codec(), [wire.encode(lone(number)) for number in range(20)]
    decoded = [codec.decode(SENDER, body) for body in bodies]
    again = [codec.decode(SENDER, body) for body in reversed(bodies)]
    kept = [one is other for one, other in zip(decoded, reversed(again), strict=True)]
    assert 4 <= sum(kept) <= 8
    assert all(kept[-4:])


def test_long_messages_are_not_kept() -> None:
    codec, body = Codec(), wire.encode(lone(1, size=1100))
    assert codec.decode(SENDER, body) is not codec.decode(SENDER, body)
