"""Hypothesis strategies for pubsub messages."""

from __future__ import annotations

from hypothesis import strategies as st

from swarmp2p.gossip.events import GossipMessage
from swarmp2p.gossip.messages import Exchanged, IHave, Prune, Rpc
from swarmp2p.gossip.wire import StrictSign
from swarmp2p.identity import Identity, PeerId

AUTHORS = [Identity(bytes([number]) * 32) for number in range(3)]

topics = st.text(max_size=12)
ids = st.lists(st.binary(max_size=60), max_size=4).map(tuple)
peers = st.binary(min_size=32, max_size=32).map(PeerId.from_public_key)


@st.composite
def signed_messages(draw: st.DrawFn) -> GossipMessage:
    """Genuine messages of one of AUTHORS."""
    author = draw(st.sampled_from(AUTHORS))
    seqno = draw(st.binary(min_size=8, max_size=8))
    return StrictSign().make(author.peer_id, draw(topics), draw(st.binary(max_size=300)), seqno, author.sign)


rpcs = st.builds(
    Rpc,
    subscriptions=st.lists(st.tuples(topics, st.booleans()), max_size=3).map(tuple),
    publish=st.lists(signed_messages(), max_size=3).map(tuple),
    ihave=st.lists(st.builds(IHave, topics, ids), max_size=3).map(tuple),
    iwant=ids,
    graft=st.lists(topics, max_size=3).map(tuple),
    prune=st.lists(
        st.builds(
            Prune,
            topics,
            st.integers(0, 1 << 31),
            st.lists(st.builds(Exchanged, peers, st.binary(max_size=9)), max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    idontwant=ids,
)
