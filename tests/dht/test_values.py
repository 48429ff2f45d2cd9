"""Putting and getting values, by single events."""

from __future__ import annotations

from swarmp2p.dht import messages
from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import GetValue, PutValue, QueryDone
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.dht.messages import FindNode, FoundNodes, FoundValue, ValueStored
from swarmp2p.identity import PeerId

from .network import peer_id
from .single import Outputs, Single, ended, infos, only, receivers, requests
from .test_validators import Largest

NUMBERS = {peer_id(number): number for number in range(100)}


def nearest(key: bytes, count: int = 4) -> list[int]:
    return sorted(range(1, count + 1), key=lambda n: peer_key(peer_id(n)) ^ key_id(key))


def connected(config: DhtConfig | None = None, count: int = 4) -> Single:
    single = Single(config or DhtConfig(validators={"ns": Largest()}))
    single.meet(*range(1, count + 1))
    return single


def answer_all(single: Single, outputs: Outputs) -> Outputs:
    """Answer the FIND_NODEs; what the last answer led to."""
    for to, request in requests(outputs, FindNode):
        outputs = single.hear(NUMBERS[to], FoundNodes(request.id, ()))
    return outputs


def get(single: Single, key: bytes, values: dict[int, bytes | None]) -> Outputs:
    """Look a value up among peers that hold these; what the last answer led to."""
    outputs = single.post(GetValue(7, key))
    for to, request in requests(outputs, messages.GetValue):
        outputs = single.hear(NUMBERS[to], FoundValue(request.id, key, values.get(NUMBERS[to]), 0.0, ()))
    return outputs


def corrected(outputs: Outputs) -> dict[PeerId, bytes]:
    return {to: request.value for to, request in requests(outputs, messages.PutValue)}


def test_a_value_goes_to_the_nearest_peers_and_those_that_confirm_it_are_counted() -> None:
    single = connected()
    puts = requests(answer_all(single, single.post(PutValue(7, b"k", b"v"))), messages.PutValue)
    assert [NUMBERS[to] for to, _ in puts] == nearest(b"k")
    assert all((put.key, put.value, put.received) == (b"k", b"v", single.now) for _, put in puts)
    replies = [b"v", None, b"other", b"v"]
    outputs: Outputs = ()
    for (to, put), value in zip(puts, replies, strict=True):
        outputs = single.hear(NUMBERS[to], ValueStored(put.id, b"k", value))
    assert ended(outputs) == [QueryDone(7, closest=infos(*nearest(b"k")), stored=2, asked=8)]


def test_a_peer_that_never_confirms_does_not_hold_it_up() -> None:
    single = connected(count=2)
    puts = requests(answer_all(single, single.post(PutValue(7, b"k", b"v"))), messages.PutValue)
    single.hear(NUMBERS[puts[0][0]], ValueStored(puts[0][1].id, b"k", b"v"))
    (done,) = ended(single.wait(2.0))
    assert (done.stored, done.failed) == (1, 1)
    single.hear(NUMBERS[puts[1][0]], ValueStored(puts[1][1].id, b"k", b"v"))  # too late for the count


def test_a_peer_that_goes_down_instead_of_confirming_is_counted_as_failed() -> None:
    single = connected(count=2)
    puts = requests(answer_all(single, single.post(PutValue(7, b"k", b"v"))), messages.PutValue)
    single.down(NUMBERS[puts[0][0]])
    (done,) = ended(single.hear(NUMBERS[puts[1][0]], ValueStored(puts[1][1].id, b"k", b"v")))
    assert (done.stored, done.failed) == (1, 1)


def test_a_value_put_is_held_here_too() -> None:
    single = connected()
    single.post(PutValue(7, b"k", b"v"))
    assert only(single.hear(9, messages.GetValue(5, b"k")), FoundValue).value == b"v"


def test_a_value_that_the_validator_refuses_is_not_sent() -> None:
    single = connected()
    assert single.post(PutValue(7, b"/ns/k", b"bad")) == [QueryDone(7, refused=True)]


def test_the_best_value_of_all_is_returned_and_worse_holders_are_corrected() -> None:
    """kad-dht spec, "Entry correction"."""
    single = connected()
    a, b, c, d = nearest(b"/ns/k")
    outputs = get(single, b"/ns/k", {a: b"v2", b: b"v9", c: None, d: b"invalid"})
    (done,) = ended(outputs)
    assert (done.query, done.value, done.asked) == (7, b"v9", 4)
    assert corrected(outputs) == {peer_id(a): b"v9", peer_id(c): b"v9", peer_id(d): b"v9"}


def test_without_a_validator_most_holders_win_and_only_empty_handed_ones_are_given_it() -> None:
    single = connected()
    a, b, c, d = nearest(b"k")
    outputs = get(single, b"k", {a: b"new", b: b"old", c: b"old", d: None})
    assert [done.value for done in ended(outputs)] == [b"old"]
    assert corrected(outputs) == {peer_id(d): b"old"}
    outputs = get(connected(), b"k", {a: b"new", b: b"old"})
    assert [done.value for done in ended(outputs)] == [b"new"]  # the nearest decides


def test_the_answers_to_corrections_are_waited_for_by_nobody() -> None:
    single = connected()
    outputs = get(single, b"k", {nearest(b"k")[0]: b"v"})
    for to, put in requests(outputs, messages.PutValue):
        assert single.hear(NUMBERS[to], ValueStored(put.id, b"k", b"v")) == []
    assert single.wait(30.0) == []


def test_a_value_under_another_key_does_not_count() -> None:
    single = connected(count=1)
    request = only(single.post(GetValue(7, b"k")), messages.GetValue)
    (done,) = ended(single.hear(1, FoundValue(request.id, b"other", b"v", 0.0, ())))
    assert done.value is None


def test_a_value_held_here_is_found_even_alone() -> None:
    single = Single()
    single.post(PutValue(7, b"k", b"v"))
    (done,) = ended(single.post(GetValue(8, b"k")))
    assert (done.query, done.value) == (8, b"v")
    assert receivers(single.wait(20.0)) == []


def test_nothing_anywhere_is_no_value() -> None:
    (done,) = ended(get(connected(), b"k", {}))
    assert done.value is None
