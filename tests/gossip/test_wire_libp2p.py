"""Our frames in py-libp2p's eyes, and its in ours."""

from __future__ import annotations

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2 as theirs
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX, signature_validator

from swarmp2p.gossip.messages import IHave, Prune, Rpc
from swarmp2p.gossip.wire import StrictSign, decode, encode, verify_message
from swarmp2p.identity import Identity, PeerId, verify

SEED = bytes(range(32))
IDENTITY = Identity(SEED)


def test_py_libp2p_reads_our_rpcs() -> None:
    message = StrictSign().make(IDENTITY.peer_id, "t", b"data", bytes(7) + b"\x07", IDENTITY.sign)
    body = encode(
        Rpc(
            subscriptions=(("t", True), ("u", False)),
            publish=(message,),
            ihave=(IHave("t", (message.id,)),),
            iwant=(message.id,),
            graft=("t",),
            prune=(Prune("u", 60),),
            idontwant=(message.id,),
        )
    )
    rpc = theirs.RPC.FromString(body)
    assert [(option.topicid, option.subscribe) for option in rpc.subscriptions] == [("t", True), ("u", False)]
    (published,) = rpc.publish
    assert (published.from_id, published.data, list(published.topicIDs)) == (IDENTITY.peer_id, b"data", ["t"])
    assert published.seqno == bytes(7) + b"\x07"
    assert not published.key
    assert [have.topicID for have in rpc.control.ihave] == ["t"]
    assert [graft.topicID for graft in rpc.control.graft] == ["t"]
    assert [(prune.topicID, prune.backoff) for prune in rpc.control.prune] == [("u", 60)]
    assert len(rpc.control.iwant) == 1


def test_py_libp2p_verifies_our_signature() -> None:
    message = StrictSign().make(IDENTITY.peer_id, "t", b"data", bytes(8), IDENTITY.sign)
    assert signature_validator(theirs.Message.FromString(message.raw))
    message = StrictSign().make(IDENTITY.peer_id, "t", b"data", bytes(8), lambda data: bytes(64))
    assert not signature_validator(theirs.Message.FromString(message.raw))


def test_we_verify_a_message_signed_by_py_libp2p() -> None:
    """As its Pubsub.publish does it: the key goes along, although the id contains it."""
    pair = create_new_key_pair(SEED)
    message = theirs.Message(
        data=b"data", topicIDs=["t"], from_id=ID.from_pubkey(pair.public_key).to_bytes(), seqno=bytes(8)
    )
    message.signature = pair.private_key.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    message.key = pair.public_key.serialize()
    body = theirs.RPC(publish=[message]).SerializeToString()
    (ours,) = decode(IDENTITY.peer_id, body).publish
    assert ours.source == PeerId(message.from_id) == IDENTITY.peer_id
    assert (ours.topic, ours.data) == ("t", b"data")
    assert verify_message(ours, verify)
    (again,) = theirs.RPC.FromString(encode(Rpc(publish=(ours,)))).publish
    assert again == message
    assert signature_validator(again)
