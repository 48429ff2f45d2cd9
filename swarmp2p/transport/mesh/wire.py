"""Mesh messages as frames: one msgpack map each, with the message's name under "type".

`/swarm/mesh/1.0.0`: each side opens one stream to the other and writes; four-byte lengths. A map has exactly the fields
of its message.
"""

from __future__ import annotations

from typing import Any, Final, assert_never, cast

from ...engine import Message
from ...errors import BadMessage, UsageError
from ...fields import Fields
from ...identity import PeerId
from ...signed import pack_map, unpack_map
from ...wire import Exchange, Framing, WireProtocol
from .facts import MAX_FACTS_BYTES, MAX_SEQUENCE, is_member_address
from .members import MAX_HOST, MAX_IP_CHARS, MEMBER_ID_BYTES, MemberId, PortBlock
from .messages import (
    MAX_DEPARTED,
    MAX_ENTRIES,
    MAX_PAIRING_BYTES,
    AnyMeshMessage,
    Entry,
    Heard,
    Invite,
    Join,
    Pairing,
    Update,
)

MESH_PROTOCOL_ID: Final = "/swarm/mesh/1.0.0"
MAX_FRAME_BYTES: Final = 128 * 1024
"""Longest Update: 24 entries of 4.3 kB, and 256 departed of 18 bytes."""

_LEAST_PORT: Final = 1024
"""What a head says has others listen: never at ports that only root may take."""


def mesh_protocol() -> WireProtocol:
    """How mesh messages go over libp2p streams."""
    return WireProtocol(
        name="mesh",
        ids=(MESH_PROTOCOL_ID,),
        exchange=Exchange.MESSAGES,
        framing=Framing.U32,
        max_frame_bytes=MAX_FRAME_BYTES,
        encode=encode,
        decode=decode,
    )


def encode(message: Message) -> bytes:
    """The frame body of a mesh message."""
    return pack_map(_to_map(cast(AnyMeshMessage, message)))


def decode(sender: PeerId, data: bytes, message_id: int) -> Message:
    """The message in a frame body; raises BadMessage for anything but what `encode` makes."""
    del sender, message_id
    return read_message(data)


def _to_map(message: AnyMeshMessage) -> dict[str, Any]:
    lease = message.lease
    match message:
        case Invite(cluster=cluster, facts=facts):
            return {"type": "invite", "lease": lease, "cluster": cluster, "facts": facts}
        case Join(facts=facts):
            return {"type": "join", "lease": lease, "facts": facts}
        case Update(base=base, upto=upto, entries=entries, departed=departed):
            return {
                "type": "update",
                "lease": lease,
                "base": base,
                "upto": upto,
                "entries": [_entry_list(entry) for entry in entries],
                "departed": list(departed),
            }
        case Heard(upto=upto):
            return {"type": "heard", "lease": lease, "upto": upto}
        case Pairing(source=source, target=target, envelope=envelope):
            return {
                "type": "pairing",
                "lease": lease,
                "source": source,
                "target": target,
                "envelope": envelope,
            }
        case _:
            assert_never(message)


def read_message(data: bytes) -> AnyMeshMessage:
    """`decode` without the arguments that mesh messages do not need."""
    fields = Fields(unpack_map(data, MAX_FRAME_BYTES))
    kind = fields.text("type", 16)
    lease = _id(fields, "lease")
    message: AnyMeshMessage
    match kind:
        case "invite":
            message = Invite(lease, _id(fields, "cluster"), fields.data("facts", 1, MAX_FACTS_BYTES))
        case "join":
            message = Join(lease, fields.data("facts", 1, MAX_FACTS_BYTES))
        case "update":
            message = Update(
                lease,
                fields.integer("base", 0, MAX_SEQUENCE),
                fields.integer("upto", 1, MAX_SEQUENCE),
                tuple(_entry(each) for each in fields.items("entries", MAX_ENTRIES)),
                tuple(_member(each) for each in fields.items("departed", MAX_DEPARTED)),
            )
        case "heard":
            message = Heard(lease, fields.integer("upto", 0, MAX_SEQUENCE))
        case "pairing":
            message = Pairing(
                lease,
                _id(fields, "source"),
                _id(fields, "target"),
                fields.data("envelope", 1, MAX_PAIRING_BYTES),
            )
        case _:
            raise BadMessage(f"no mesh message is called {kind!r}")
    fields.done()
    return message


def _id(fields: Fields, key: str) -> MemberId:
    return fields.data(key, MEMBER_ID_BYTES, MEMBER_ID_BYTES)


def _member(value: Any) -> MemberId:
    if type(value) is not bytes or len(value) != MEMBER_ID_BYTES:
        raise BadMessage(f"a member's id is not {MEMBER_ID_BYTES} bytes")
    return value


def _entry_list(entry: Entry) -> list[Any]:
    block = entry.block
    return [entry.member, bytes(entry.peer), entry.host, entry.address, block.first, block.count, entry.facts]


def _entry(value: Any) -> Entry:
    if type(value) is not list or len(value) != 7:
        raise BadMessage("a member's entry has not seven fields")
    member, peer, host, address, first, count, facts = value
    if type(peer) is not bytes or type(facts) is not bytes or not 1 <= len(facts) <= MAX_FACTS_BYTES:
        raise BadMessage("a member's peer or facts are no bytes of their length")
    if type(address) is not str or len(address) > MAX_IP_CHARS or not is_member_address(address):
        raise BadMessage("a member's address is not in 127.0.0.0/8")
    if type(host) is not int or not 0 < host <= MAX_HOST:
        raise BadMessage("a member's host number is none")
    if type(first) is not int or type(count) is not int:
        raise BadMessage("a member's block of ports is not two numbers")
    if not _LEAST_PORT <= first < 65536 or not 0 < count <= 65536 - first:
        raise BadMessage("a member's block of ports is none")
    try:
        return Entry(_member(member), PeerId.from_bytes(peer), host, address, PortBlock(first, count), facts)
    except UsageError:
        raise BadMessage("a member's peer is no peer id") from None
