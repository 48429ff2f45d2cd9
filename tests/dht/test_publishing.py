"""Provide, Announce, Withdraw: what is sent, when, and again."""

from __future__ import annotations

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, Provide, SetAddresses, StopProviding, Withdraw
from swarmp2p.dht.keys import key_id, multihash_key, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, FindNode, FoundNodes, FoundRecord, GetRecord, Provider
from swarmp2p.dht.provider_record import make_statement
from swarmp2p.dht.records import open_record, read_claim
from swarmp2p.engine import Located, Reply
from swarmp2p.identity import PeerId

from .network import address, fake_sign, fake_verify, peer_id
from .single import Outputs, Single, ended, only, receivers, requests

KEY = multihash_key(b"key")
PEERS = range(1, 6)
NUMBERS = {peer_id(number): number for number in range(100)}


def served(single: Single, outputs: Outputs) -> list[Outputs]:
    """Answer the FIND_NODEs among the outputs, and those that follow; everything that came of it."""
    everything = [outputs]
    waiting = requests(outputs, FindNode)
    while waiting:
        to, request = waiting.pop(0)
        outputs = single.hear(NUMBERS[to], FoundNodes(request.id, ()))
        everything.append(outputs)
        waiting += requests(outputs, FindNode)
    return everything


def sent(outputs: list[Outputs]) -> list[tuple[PeerId, AddProvider]]:
    return [pair for some in outputs for pair in requests(some, AddProvider)]


def envelope(message: AddProvider) -> bytes:
    assert message.provider is not None
    return message.provider.record


def connected(config: DhtConfig | None = None) -> Single:
    single = Single(config)
    single.meet(*PEERS)
    return single


def test_a_provider_record_goes_to_the_nearest_peers_with_the_own_addresses() -> None:
    single = connected(DhtConfig(k=5))
    outputs = served(single, single.post(Provide(7, KEY)))
    order = sorted(PEERS, key=lambda n: peer_key(peer_id(n)) ^ key_id(KEY))
    assert [to for to, _ in sent(outputs)] == [peer_id(n) for n in order]
    statement = make_statement(KEY, 1_000_000, 1000.0 + 48 * 3600.0, fake_sign(peer_id(0)))
    provider = Provider(peer_id(0), (address(0),), statement)
    assert all((message.key, message.provider) == (KEY, provider) for _, message in sent(outputs))
    (done,) = [done for some in outputs for done in ended(some)]
    assert (done.query, done.stored, done.asked, done.failed) == (7, 5, 5, 0)


def test_nobody_s_answer_to_add_provider_is_waited_for() -> None:
    """go and js send none."""
    assert not AddProvider.expects_reply
    single = connected()
    served(single, single.post(Provide(7, KEY)))
    single.wait(60.0)
    assert all(entry.failures == 0 for entry in single.engine.table.snapshot())


def test_a_key_that_is_no_multihash_is_made_one() -> None:
    single = connected()
    outputs = served(single, single.post(Provide(7, b"key")))
    assert {message.key for _, message in sent(outputs)} == {KEY}


def test_without_addresses_nothing_is_sent_and_it_is_tried_again() -> None:
    single = connected(DhtConfig(retry_s=15.0))
    single.post(SetAddresses(()))
    outputs = served(single, single.post(Provide(7, KEY)))
    assert sent(outputs) == []
    assert [done.stored for some in outputs for done in ended(some)] == [0]
    single.post(SetAddresses((address(0),)))
    assert len(sent(served(single, single.wait_for_requests(17.0)))) == 5


def test_before_anybody_is_known_it_is_tried_again_soon() -> None:
    single = Single(DhtConfig(retry_s=15.0))
    (done,) = ended(single.post(Provide(7, KEY)))
    assert done.stored == 0
    single.meet(*PEERS)
    assert len(sent(served(single, single.wait_for_requests(17.0)))) == 5


def test_with_fewer_than_k_holders_it_is_stored_again_after_the_next_refresh() -> None:
    single = connected(DhtConfig(refresh_interval_s=1e6, k=20))
    served(single, single.post(Provide(7, KEY)))
    assert single.engine.deadline() > 1000.0 + 80_000.0
    single = connected(DhtConfig(refresh_interval_s=600.0, k=20))
    served(single, single.post(Provide(7, KEY)))
    again = [served(single, single.wait_for_requests(700.0)) for _ in range(2)]  # the refresh and the renewal
    assert sorted(len(sent(outputs)) for outputs in again) == [0, 5]


def test_with_fewer_than_k_holders_whoever_turns_up_has_it_soon() -> None:
    """Were it a machine so busy that it answered only after the lookup was over."""
    single = connected(DhtConfig(refresh_interval_s=1e6, k=20, retry_s=15.0))
    served(single, single.post(Provide(7, KEY)))
    single.meet(6, 7)
    assert sent([single.wait(10.0)]) == []
    told = sent(served(single, single.wait_for_requests(7.0)))
    assert sorted(NUMBERS[to] for to, _ in told) == [1, 2, 3, 4, 5, 6, 7]
    single.meet(8)  # they come one by one: less and less often
    assert sent([single.wait(25.0)]) == []
    assert len(sent(served(single, single.wait_for_requests(9.0)))) == 8
    single.post(StopProviding(KEY))
    single.meet(9)
    assert receivers(single.wait(100.0)) == []


def test_who_did_not_answer_in_time_is_told_soon() -> None:
    single = connected(DhtConfig(refresh_interval_s=1e6, k=20, retry_s=15.0))
    outputs = single.post(Announce(7, "svc", ()))
    asked = requests(outputs, FindNode)
    for to, request in asked[:-1]:
        outputs = single.hear(NUMBERS[to], FoundNodes(request.id, ()))
    told = sent([outputs, single.wait(9.0)])
    assert len(told) == 4
    to, request = asked[-1]
    single.hear(NUMBERS[to], FoundNodes(request.id, ()))
    again = sent(served(single, single.wait_for_requests(17.0)))
    assert to in [receiver for receiver, _ in again]
    assert len(again) == 5


def test_provided_keys_are_stored_again_after_22_hours_until_they_are_not_wanted() -> None:
    single = connected(DhtConfig(k=5, refresh_interval_s=1e7))
    served(single, single.post(Provide(7, KEY)))
    assert receivers(single.wait(19.7 * 3600)) == []
    assert len(sent(served(single, single.wait_for_requests(4.6 * 3600)))) == 5
    single.post(StopProviding(KEY))
    assert receivers(single.wait(30 * 3600)) == []
    single.post(StopProviding(KEY))  # nothing happens


def test_an_announcement_carries_a_signed_record_and_is_renewed_with_a_higher_sequence() -> None:
    config = DhtConfig(k=5, announce_interval_s=1200.0, record_ttl_s=3600.0, refresh_interval_s=1e7)
    single = connected(config)
    outputs = sent(served(single, single.post(Announce(7, "svc", (("cpus", 4),)))))
    assert len(outputs) == 5
    assert {message.key for _, message in outputs} == {service_key("svc")}
    first = open_record(peer_id(0), envelope(outputs[0][1]), fake_verify)
    assert (first.service, first.attributes, first.expires) == ("svc", {"cpus": 4}, single.now + 3600.0)
    assert first.sequence == single.now * 1000
    later = sent(served(single, single.wait_for_requests(1400.0)))
    assert len(later) == 5
    second = open_record(peer_id(0), envelope(later[0][1]), fake_verify)
    assert second.sequence > first.sequence
    assert second.expires > first.expires + 1000.0


def test_the_next_announcement_of_a_service_replaces_the_last() -> None:
    single = connected()
    first = sent(served(single, single.post(Announce(7, "svc", (("cpus", 4),)))))
    second = sent(served(single, single.post(Announce(8, "svc", (("cpus", 2),)))))
    assert read_claim(envelope(second[0][1])).sequence > read_claim(envelope(first[0][1])).sequence
    held = only(single.hear(3, GetRecord(5, "svc")), FoundRecord).envelope
    assert open_record(peer_id(0), held, fake_verify).attributes == {"cpus": 2}


def test_a_withdrawal_goes_at_once_to_all_that_hold_the_record() -> None:
    single = connected()
    first = sent(served(single, single.post(Announce(7, "svc", ()))))
    outputs = single.post(Withdraw(8, "svc"))
    told = requests(outputs, AddProvider)
    assert sorted(to for to, _ in told) == sorted(to for to, _ in first)
    claim = read_claim(envelope(told[0][1]))
    assert claim.withdrawn
    assert claim.sequence > read_claim(envelope(first[0][1])).sequence
    assert [(done.query, done.stored) for done in ended(outputs)] == [(8, 5)]
    assert only(single.hear(3, GetRecord(5, "svc")), FoundRecord).envelope == b""
    assert requests(single.wait(5000.0), AddProvider) == []


def test_withdrawing_what_is_not_announced_ends_at_once() -> None:
    single = connected()
    (done,) = ended(single.post(Withdraw(8, "svc")))
    assert (done.query, done.stored) == (8, 0)


def test_an_announcement_withdrawn_under_way_is_never_sent() -> None:
    single = connected()
    started = single.post(Announce(7, "svc", ()))
    single.post(Withdraw(8, "svc"))
    outputs = served(single, started)
    assert sent(outputs) == []
    assert [done.query for some in outputs for done in ended(some)] == [7]
    assert requests(single.wait(5000.0), AddProvider) == []


def test_a_service_announced_again_after_its_withdrawal_is_newer() -> None:
    single = connected()
    served(single, single.post(Announce(7, "svc", ())))
    gone = requests(single.post(Withdraw(8, "svc")), AddProvider)[0][1]
    again = sent(served(single, single.post(Announce(9, "svc", ()))))[0][1]
    assert read_claim(envelope(again)).sequence > read_claim(envelope(gone)).sequence


def test_stop_providing_leaves_services_alone() -> None:
    single = connected()
    served(single, single.post(Announce(7, "svc", ())))
    single.post(StopProviding(service_key("svc")))
    assert only(single.hear(3, GetRecord(5, "svc")), FoundRecord).envelope


def test_an_echo_of_add_provider_is_taken_as_nothing() -> None:
    single = connected()
    outputs = sent(served(single, single.post(Provide(7, KEY))))
    assert single.hear(NUMBERS[outputs[0][0]], Reply(outputs[0][1].id)) == []


def test_records_follow_a_peer_that_moves_at_once_and_then_not_too_often() -> None:
    config = DhtConfig(k=5, refresh_interval_s=1e7, retry_s=15.0)
    single = connected(config)
    served(single, single.post(Provide(7, KEY)))
    single.post(Located(peer_id(0), (address(0),)))  # where it was
    assert receivers(single.wait(60.0)) == []
    for number, within_s in ((70, 1.0), (71, 16.0)):
        before = single.now
        single.post(Located(peer_id(0), (address(number),)))
        again = sent(served(single, single.wait_for_requests(within_s)))
        assert {message.provider and message.provider.addresses for _, message in again} == {
            (address(number),)
        }
        assert single.now - before > within_s - 2.0
    single.post(Located(peer_id(0), ()))  # nowhere: there is nothing to say
    assert receivers(single.wait(60.0)) == []
