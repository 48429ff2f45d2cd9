"""Sources that sign what hurts others: two messages under one number, numbers from the future, forms that not everybody
takes. Those who merely pass their messages on must not pay for it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.events import Acceptance, GossipMessage, StartValidating, Validated
from swarmp2p.gossip.messages import BareMessages, IHave, Rpc, Verdict
from swarmp2p.gossip.router import GossipRouter
from swarmp2p.gossip.wire import StrictSign
from swarmp2p.identity import Identity, verify
from swarmp2p.signed import Verify

from .harness import ME, Scripted
from .network import message, peer_id, stub_sign, stub_verify

LIAR, HONEST = 1, 2
AUTHOR = Identity(bytes(range(32)))


def by_content(sent: GossipMessage, _now: float) -> Acceptance:
    return Acceptance.REJECT if sent.data.startswith(b"bad") else Acceptance.ACCEPT


def listening(config: GossipConfig | None = None) -> Scripted:
    node = Scripted(config)
    node.subscribe()
    node.up(LIAR, HONEST, 3)
    for number in (LIAR, HONEST, 3):
        node.receive(number, Rpc(graft=("t",)))
    return node


# Two messages with one number -------------------------------------------------------------------------------


def test_who_brings_the_good_one_of_two_messages_with_one_number_does_not_pay_for_the_bad_one() -> None:
    """A source signs two messages under one number, and gives the one that is refused to us, the other to all. What
    honest neighbours then pass on has the same id."""
    node = listening(GossipConfig(topics={"t": TopicConfig(validator=by_content)}))
    for number in range(5):
        node.receive(LIAR, Rpc(publish=(message(9, number, data=b"bad"),)))
        node.receive(HONEST, Rpc(publish=(message(9, number, data=b"good"),)))
        node.receive(3, Rpc(publish=(message(9, number, topic="t", data=b"bad"),)))
    assert node.score(LIAR) < 0
    assert node.score(3) < 0, "the very message that was refused"
    assert node.score(HONEST) == 0


def test_nor_while_the_bad_one_waits_to_be_judged() -> None:
    node = listening()
    node.handle(StartValidating("t", 5.0))
    node.receive(LIAR, Rpc(publish=(message(9, 1, data=b"bad"),)))
    node.receive(HONEST, Rpc(publish=(message(9, 1, data=b"good"),)))
    node.receive(3, Rpc(publish=(message(9, 1, data=b"bad"),)))
    node.handle(Validated(message(9, 1).id, Acceptance.REJECT))
    assert node.score(LIAR) < 0
    assert node.score(3) < 0
    assert node.score(HONEST) == 0


def test_nor_does_who_brings_it_later() -> None:
    node = listening()
    node.handle(StartValidating("t", 5.0))
    node.receive(LIAR, Rpc(publish=(message(9, 1, data=b"bad"),)))
    node.handle(Validated(message(9, 1).id, Acceptance.REJECT))
    node.receive(HONEST, Rpc(publish=(message(9, 1, data=b"good"),)))
    assert node.score(HONEST) == 0


# Numbers from the future ------------------------------------------------------------------------------------


def test_a_number_from_the_future_in_a_message_that_is_ignored_does_not_silence_its_source() -> None:
    """A provider whose clock is a day ahead, and then put right."""

    def validator(sent: GossipMessage, _now: float) -> Acceptance:
        return Acceptance.IGNORE if sent.data == b"tomorrow" else Acceptance.ACCEPT

    node = listening(GossipConfig(topics={"t": TopicConfig(validator=validator, latest_only=True)}))
    node.receive(LIAR, Rpc(publish=(message(9, 1 << 60, data=b"tomorrow"),)))
    node.receive(LIAR, Rpc(publish=(message(9, 7, data=b"today"),)))
    assert [one.data for one in node.delivered] == [b"today"]


# Forms that not everybody takes -----------------------------------------------------------------------------


def test_a_number_of_another_length_is_no_forgery() -> None:
    """go-libp2p-pubsub relays whatever number its source signed: who passes it on to us is not to be blamed."""
    made = StrictSign().make(AUTHOR.peer_id, "t", b"data", b"1234567", AUTHOR.sign)
    assert StrictSign().check(made, verify) is Verdict.UNUSABLE
    forged = replace(made, signature=bytes(64))
    assert StrictSign().check(forged, verify) is Verdict.FORGED


class _NoKey(BareMessages):
    """Messages of source 9 have keys that we cannot check."""

    def check(self, message: GossipMessage, verify: Verify) -> Verdict:
        return Verdict.UNUSABLE if message.source == peer_id(9) else super().check(message, verify)


def test_who_delivers_what_we_cannot_check_has_kept_its_promise() -> None:
    """One RSA source in a topic, and every honest neighbour's offer of its messages would be a promise broken."""
    node = Scripted()
    node.router = GossipRouter(peer_id(ME), stub_sign, stub_verify, Random(0), form=_NoKey())
    node.subscribe()
    node.up(HONEST)
    for number in range(30):
        sent = message(9, number)
        assert node.receive(HONEST, Rpc(ihave=(IHave("t", (sent.id,)),)))[peer_id(HONEST)].iwant
        node.receive(HONEST, Rpc(publish=(sent,)))
        node.heartbeat()
    assert node.router.stats.unusable == 30
    assert node.router.stats.promises_broken == 0
    assert node.score(HONEST) == 0


def test_who_delivers_what_finds_no_room_has_kept_its_promise() -> None:
    node = listening(GossipConfig(max_validating=4))
    node.handle(StartValidating("t", 1000.0))
    for number in range(8):
        node.receive(LIAR, Rpc(publish=(message(9, number),)))
        node.receive(3, Rpc(publish=(message(9, 100 + number),)))
        node.receive(HONEST, Rpc(publish=(message(9, 200 + number),)))
    assert node.router.stats.validation_full
    sent = message(8, 1)
    node.receive(HONEST, Rpc(ihave=(IHave("t", (sent.id,)),)))
    node.receive(HONEST, Rpc(publish=(sent,)))
    for _ in range(5):
        node.heartbeat()
    assert node.router.stats.promises_broken == 0
