"""What an engine asks to be kept over a restart, and what it does with it afterwards."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, Join, Restore, SaveState, StateChanged
from swarmp2p.dht.keys import key_id, multihash_key, peer_key, service_key
from swarmp2p.dht.messages import (
    AddProvider,
    FindNode,
    FoundNodes,
    FoundProviders,
    FoundValue,
    GetProviders,
    GetValue,
    Provider,
    PutValue,
)
from swarmp2p.dht.records import make_record, read_claim
from swarmp2p.dht.state import (
    Entry,
    EntryId,
    HeldProvider,
    HeldValue,
    Journal,
    OwnSequence,
    RememberedPeer,
)
from swarmp2p.engine import Tick

from .network import TestNetwork, address, fake_sign, peer_id, peer_info
from .single import Outputs, Single, infos, only, receivers, requests

KEY = multihash_key(b"key")


def told(outputs: Outputs) -> list[StateChanged]:
    return [output for output in outputs if isinstance(output, StateChanged)]


class Disk:
    """Keeps what StateChanged says, as a runner does."""

    def __init__(self) -> None:
        self.entries: dict[EntryId, Entry] = {}

    def write(self, outputs: Outputs) -> None:
        for output in told(outputs):
            if output.whole:
                self.entries.clear()
            for id, entry in output.changes:
                if entry is None:
                    self.entries.pop(id, None)
                else:
                    assert entry.id == id
                    self.entries[id] = entry

    def restore(self) -> Restore:
        return Restore(tuple(self.entries.values()))


def started(disk: Disk, config: DhtConfig | None = None, now: float = 1000.0) -> Single:
    single = Single(config)
    single.now = now
    single.post(Tick())  # what its first moments set going is over
    single.post(disk.restore())
    return single


def saved(single: Single, disk: Disk) -> None:
    disk.write(single.post(SaveState()))


def provides(number: int, key: bytes = KEY) -> AddProvider:
    return AddProvider(1, key, Provider(peer_id(number), (address(number),)))


def providers(single: Single, key: bytes = KEY) -> list[Provider]:
    return list(only(single.hear(99, GetProviders(1, key)), FoundProviders).providers)


def test_without_a_restore_nothing_is_told() -> None:
    single = Single()
    single.hear(1, provides(1))
    single.hear(1, PutValue(1, b"k", b"v", 0.0))
    assert told(single.post(SaveState(whole=True))) == []
    assert told(single.wait(3600.0)) == []


def test_changes_are_told_in_batches_and_only_once() -> None:
    single = started(Disk(), DhtConfig(state_interval_s=0.5))
    assert told(single.hear(1, provides(1))) == []
    single.wait(0.3)
    single.hear(2, provides(2))
    single.hear(2, PutValue(1, b"k", b"v", 0.0))
    (changed,) = told(single.wait(0.25))
    assert [id for id, _ in changed.changes] == [
        ("provider", KEY, peer_id(1)),
        ("provider", KEY, peer_id(2)),
        ("value", b"k", b""),
    ]
    assert not changed.whole
    assert told(single.wait(100.0)) == []


def test_what_was_kept_is_served_after_a_restart() -> None:
    disk, before = Disk(), Single()
    before.post(disk.restore())
    before.hear(1, provides(1))
    before.hear(2, PutValue(1, b"k", b"v", 0.0))
    disk.write(before.wait(1.0))
    after = started(disk, now=before.now + 60.0)
    assert providers(after) == [Provider(peer_id(1), (address(1),))]
    assert only(after.hear(9, GetValue(1, b"k")), FoundValue).value == b"v"


def test_a_restored_record_expires_when_it_would_have() -> None:
    config = DhtConfig(provider_ttl_s=100.0, value_ttl_s=100.0)
    disk = Disk()
    before = started(disk, config)
    before.hear(1, provides(1))
    before.hear(1, PutValue(1, b"k", b"v", 0.0))
    saved(before, disk)
    late = started(disk, config, before.now + 99.0)
    assert len(providers(late)) == 1
    late.wait(2.0)
    assert providers(late) == []
    assert only(late.hear(9, GetValue(1, b"k")), FoundValue).value is None
    gone = started(disk, config, before.now + 101.0)
    assert providers(gone) == []
    saved(gone, disk)
    assert disk.entries == {}, "what expired while the peer was away stays on disk"


def test_a_clock_that_was_set_back_makes_nothing_live_longer() -> None:
    config = DhtConfig(provider_ttl_s=100.0, value_ttl_s=100.0)
    disk = Disk()
    before = started(disk, config, now=1e6)
    before.hear(1, provides(1))
    before.hear(1, PutValue(1, b"k", b"v", 0.0))
    saved(before, disk)
    after = started(disk, config, now=1000.0)
    assert len(providers(after)) == 1
    after.wait(101.0)
    assert providers(after) == []
    assert only(after.hear(9, GetValue(1, b"k")), FoundValue).value is None


def test_a_withdrawn_record_stays_withdrawn() -> None:
    def record(sequence: int, expires: float) -> AddProvider:
        peer = peer_id(1)
        envelope = make_record(peer, "svc", {}, sequence, expires, fake_sign(peer)).envelope
        return AddProvider(1, service_key("svc"), Provider(peer, (address(1),), envelope))

    disk = Disk()
    before = started(disk)
    before.hear(1, record(5, before.now + 500.0))
    before.hear(1, record(6, 0.0))
    saved(before, disk)
    after = started(disk)
    after.hear(1, record(5, before.now + 500.0))  # late
    assert providers(after, service_key("svc")) == []
    after.hear(1, record(7, before.now + 500.0))
    assert len(providers(after, service_key("svc"))) == 1


def test_own_sequence_numbers_never_go_back() -> None:
    disk = Disk()
    before = started(disk, now=1e6)
    before.meet(1)
    before.post(Announce(1, "svc"))
    saved(before, disk)
    (entry,) = [entry for entry in disk.entries.values() if isinstance(entry, OwnSequence)]
    after = started(disk, now=1000.0)  # the clock was set back
    after.meet(1)
    ((_, asked),) = requests(after.post(Announce(1, "svc")), FindNode)
    after.post(Announce(2, "svc"))
    sent = after.hear(1, FoundNodes(asked.id, ()))
    adds = requests(sent, AddProvider)
    assert adds
    for _, add in adds:
        assert add.provider is not None
        assert read_claim(add.provider.record).sequence > entry.sequence


def test_bounds_hold_for_what_is_restored_and_the_disk_forgets_the_rest() -> None:
    disk = Disk()
    before = started(disk)
    keys = sorted(
        (multihash_key(b"%d" % n) for n in range(6)), key=lambda k: key_id(k) ^ peer_key(peer_id(0))
    )
    for key in keys:
        before.hear(1, provides(1, key))
        before.hear(1, PutValue(1, key, b"v", 0.0))
    saved(before, disk)
    small = DhtConfig(max_provider_keys=2, max_values=3)
    after = started(disk, small)
    assert [key for key in keys if providers(after, key)] == keys[:2]
    saved(after, disk)
    assert sorted(id[0] for id in disk.entries) == ["provider"] * 2 + ["value"] * 3


def test_what_the_stores_drop_leaves_the_disk() -> None:
    disk = Disk()
    single = started(disk, DhtConfig(max_providers_per_key=2))
    for number in (1, 2, 3):
        single.hear(number, provides(number))
    saved(single, disk)
    assert [id[2] for id in disk.entries] == [peer_id(2), peer_id(3)]


def test_a_whole_state_is_told_when_asked_for() -> None:
    single = started(Disk())
    single.hear(1, provides(1))
    single.wait(10.0)
    (changed,) = told(single.post(SaveState(whole=True)))
    assert changed.whole
    assert [id for id, _ in changed.changes] == [("provider", KEY, peer_id(1))]
    assert told(single.post(SaveState())) == []


def test_a_journal_that_overflows_asks_for_the_whole_state() -> None:
    journal = Journal(3)
    for number in range(4):
        journal.keep(HeldValue(b"%d" % number, b"", 0.0))
    assert journal.overflowed
    assert len(journal) == 1
    assert journal.take() == ()
    assert not journal.overflowed


def test_an_engine_whose_journal_overflowed_tells_its_whole_state() -> None:
    disk = Disk()
    single = started(disk)
    single.hear(1, provides(1))
    keeper = single.engine._keeper  # pyright: ignore[reportPrivateUsage]
    assert keeper is not None
    keeper.journal.overflowed = True
    (changed,) = told(single.wait(1.0))
    assert changed.whole
    assert len(changed.changes) == 1


def remembered(disk: Disk) -> list[RememberedPeer]:
    return [entry for entry in disk.entries.values() if isinstance(entry, RememberedPeer)]


def test_peers_of_the_table_are_remembered_soon_after_the_start() -> None:
    disk = Disk()
    single = started(disk)
    single.meet(1, 2)
    disk.write(single.wait(10.0))
    assert {entry.peer: entry.addresses for entry in remembered(disk)} == {
        peer_id(n): (address(n),) for n in (1, 2)
    }
    single.hear(1, provides(1))
    assert len(told(single.wait(600.0))) <= 2, "peers that are still there are written over and over"


def test_the_longest_known_peers_of_all_buckets_are_remembered_and_no_more_than_the_bound() -> None:
    disk = Disk()
    single = started(disk, DhtConfig(max_remembered=4))
    buckets: dict[int, list[int]] = {}
    for number in range(1, 40):
        single.meet(number)
        single.now += 0.01
        distance = peer_key(peer_id(number)) ^ peer_key(peer_id(0))
        buckets.setdefault(distance.bit_length(), []).append(number)
    saved(single, disk)
    kept = remembered(disk)
    assert len(kept) == 4
    firsts = [peer_id(members[0]) for members in buckets.values()]
    assert sum(entry.peer in firsts for entry in kept) == min(4, len(firsts))


def test_a_peer_that_was_cut_off_forgets_nobody() -> None:
    disk = Disk()
    before = started(disk)
    before.meet(1, 2, 3)
    saved(before, disk)
    after = started(disk, now=before.now + 1e6)
    after.wait(3600.0)
    saved(after, disk)
    assert {entry.peer for entry in remembered(disk)} == {peer_id(1), peer_id(2), peer_id(3)}


def test_newer_peers_displace_the_remembered_ones_seen_longest_ago() -> None:
    disk = Disk()
    old = [RememberedPeer(peer_id(n), (address(n),), float(n)) for n in (10, 11, 12)]
    disk.entries = {entry.id: entry for entry in old}
    single = started(disk, DhtConfig(max_remembered=4))
    single.meet(1, 2)
    saved(single, disk)
    assert {entry.peer for entry in remembered(disk)} == {peer_id(n) for n in (1, 2, 11, 12)}


def test_peers_that_did_not_answer_are_asked_with_each_refresh() -> None:
    single = Single(DhtConfig(refresh_interval_s=600.0))
    single.meet(1)
    assert receivers(single.post(Join(1, infos(1), infos(2)))) == [peer_id(1)]
    single.down(1)
    assert peer_id(2) in receivers(single.wait(700.0))


def test_a_second_join_does_not_forget_the_first_one_s_peers() -> None:
    single = Single()
    single.post(Join(1, infos(1)))
    single.down(1)
    single.post(Join(2, infos(2)))
    single.down(2)
    assert {peer_id(1), peer_id(2)} <= set(receivers(single.wait(100.0)))


def test_a_network_restarts_from_what_its_peers_remember() -> None:
    network = TestNetwork()
    disk = Disk()
    nodes = [network.add(number) for number in range(8)]
    network.post(nodes[7], Restore())
    for node in nodes[1:]:
        network.join(node, nodes[0])
    network.run(10.0)
    disk.write(nodes[7].outputs)
    network.crash(nodes[0])
    network.crash(nodes[7])
    again = network.add(7)
    network.post(again, disk.restore())
    asked = tuple(peer_info(n) for n in range(7) if peer_id(n) in {entry.peer for entry in remembered(disk)})
    done = network.ask(again, lambda query: Join(query, asked))
    assert {info.peer for info in done.closest} == {node.id for node in nodes[1:7]}


def plain(number: int) -> Provider:
    return Provider(peer_id(number), (address(number),))


entries = st.lists(
    st.one_of(
        st.builds(
            HeldProvider,
            st.sampled_from([multihash_key(b"%d" % n) for n in range(4)]),
            st.builds(plain, st.integers(1, 5)),
            st.floats(0, 3000),
            st.integers(0, 3),
            st.booleans(),
        ),
        st.builds(HeldValue, st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=3), st.floats(0, 3000)),
        st.builds(OwnSequence, st.integers(0, 10**7)),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(entries)
def test_restoring_and_saving_again_changes_nothing(found: list[Entry]) -> None:
    """The second restart finds what the first one left."""
    config = DhtConfig(max_provider_keys=3, max_providers_per_key=3, max_values=2, provider_ttl_s=3000.0)
    disk = Disk()
    disk.entries = {entry.id: entry for entry in found}
    first = started(disk, config)
    disk.write(first.post(SaveState(whole=True)))
    kept = dict(disk.entries)
    second = started(disk, config)
    disk.write(second.post(SaveState(whole=True)))
    assert {id: _plain(entry) for id, entry in disk.entries.items()} == {
        id: _plain(entry) for id, entry in kept.items()
    }


def _plain(entry: Entry) -> Entry:
    return replace(entry, expires=round(entry.expires, 6)) if isinstance(entry, HeldProvider) else entry
