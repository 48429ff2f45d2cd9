"""Finding services by single events: records verified, newest, asked for where they are missing."""

from __future__ import annotations

from collections import Counter

from swarmp2p.dht.config import DhtConfig
from swarmp2p.dht.events import Announce, DhtOutput, FindService, ServiceFound
from swarmp2p.dht.keys import key_id, peer_key, service_key
from swarmp2p.dht.messages import AddProvider, FoundProviders, FoundRecord, GetProviders, GetRecord, Provider
from swarmp2p.dht.records import Attribute, make_record
from swarmp2p.engine import NetworkOutput
from swarmp2p.identity import PeerId

from .network import address, fake_sign, peer_id, peer_info
from .single import Outputs, Single, ended, introduced, only, receivers, requests

KEY = service_key("svc")
HOLDERS = sorted(range(1, 5), key=lambda n: peer_key(peer_id(n)) ^ key_id(KEY))
NUMBERS = {peer_id(number): number for number in range(100)}


def provider(
    number: int, sequence: int = 1, *, expires: float = 5000.0, service: str = "svc", **attributes: Attribute
) -> Provider:
    """A provider with a genuine record."""
    peer = peer_id(number)
    record = make_record(peer, service, attributes, sequence, expires, fake_sign(peer))
    return Provider(peer, (address(number),), record.envelope)


def bare(number: int) -> Provider:
    """A provider as a peer of another implementation passes it on."""
    return Provider(peer_id(number), (address(number),))


class Find:
    """A FindService under way at a peer that knows the four holders."""

    def __init__(
        self,
        where: tuple[tuple[str, Attribute], ...] = (),
        limit: int = 0,
        config: DhtConfig | None = None,
        seed: int = 1,
    ) -> None:
        self.single = Single(config or DhtConfig(find_window=10))
        self.single.engine._rng.seed(seed)  # pyright: ignore[reportPrivateUsage]
        self.single.meet(*HOLDERS)
        self.waiting: dict[int, int] = {}
        self.outputs: list[NetworkOutput | DhtOutput] = []
        self._take(self.single.post(FindService(7, "svc", where, limit)))

    def answer(self, index: int, *providers: Provider) -> Outputs:
        """The holder with that rank answers."""
        number = HOLDERS[index]
        outputs = self.single.hear(number, FoundProviders(self.waiting.pop(number), KEY, providers, ()))
        self._take(outputs)
        return outputs

    def answer_rest(self, *providers: Provider) -> Outputs:
        """All others answer alike; what the last answer led to."""
        outputs: Outputs = ()
        for index, number in enumerate(HOLDERS):
            if number in self.waiting:
                outputs = self.answer(index, *providers)
        return outputs

    def _take(self, outputs: Outputs) -> None:
        self.outputs += outputs
        self.waiting.update({NUMBERS[to]: request.id for to, request in requests(outputs, GetProviders)})


def found(outputs: Outputs) -> list[tuple[PeerId, int]]:
    return [(o.record.provider, o.record.sequence) for o in outputs if isinstance(o, ServiceFound)]


def test_a_verified_record_is_an_output_as_soon_as_it_arrives() -> None:
    find = Find()
    (output,) = find.answer(0, provider(50, cpus=4))
    assert isinstance(output, ServiceFound)
    assert (output.query, output.record.provider, output.record.attributes) == (7, peer_id(50), {"cpus": 4})
    assert output.addresses == (address(50),)


def test_each_provider_comes_once_and_again_only_with_a_newer_record() -> None:
    find = Find()
    assert found(find.answer(0, provider(50, 2), provider(51, 1))) == [(peer_id(50), 2), (peer_id(51), 1)]
    assert found(find.answer(1, provider(50, 2), provider(50, 1))) == []
    assert found(find.answer(2, provider(50, 3))) == [(peer_id(50), 3)]
    assert len(ended(find.answer(3))) == 1


def test_lapsed_and_withdrawn_records_are_hidden_and_a_withdrawal_hides_older_ones() -> None:
    find = Find()
    assert found(find.answer(0, provider(50, 1, expires=900.0), provider(51, 5, expires=0.0))) == []
    assert found(find.answer(1, provider(51, 4))) == []
    done = find.answer_rest()
    assert receivers(done) == []  # neither is asked: they have spoken
    assert len(ended(done)) == 1


def test_a_record_a_little_past_its_expiry_is_forgiven_the_clocks() -> None:
    assert len(found(Find().answer(0, provider(50, expires=971.0)))) == 1


def test_a_provider_without_record_is_asked_itself_when_the_lookup_is_over() -> None:
    find = Find()
    assert receivers(find.answer(0, bare(50))) == []
    last = find.answer_rest()
    assert introduced(last) == [peer_info(50)]
    assert receivers(last) == [peer_id(50)]
    question = only(last, GetRecord)
    assert question.service == "svc"
    outputs = find.single.hear(50, FoundRecord(question.id, provider(50, 9).record))
    assert found(outputs) == [(peer_id(50), 9)]
    (done,) = ended(outputs)
    assert (done.query, done.asked) == (7, 5)


def test_a_provider_that_came_with_a_record_elsewhere_is_not_asked() -> None:
    find = Find()
    find.answer(0, bare(50))
    assert found(find.answer(1, provider(50))) == [(peer_id(50), 1)]
    find.answer(2, bare(50))
    assert receivers(find.answer_rest()) == []


def test_a_forged_record_is_as_good_as_none_and_hides_no_genuine_one() -> None:
    forged = Provider(peer_id(50), (address(50),), provider(51, 99).record)
    find = Find()
    assert find.answer(0, forged) == []
    assert found(find.answer(1, provider(50, 1))) == [(peer_id(50), 1)]
    find = Find()
    find.answer(0, forged, Provider(peer_id(51), (address(51),), b"junk"))
    assert receivers(find.answer_rest()) == [peer_id(50), peer_id(51)]


def test_the_record_of_another_service_does_not_count() -> None:
    find = Find()
    assert found(find.answer(0, provider(50, service="other"))) == []
    assert receivers(find.answer_rest()) == [peer_id(50)]


def test_providers_that_answer_with_nothing_or_not_at_all_are_left_out() -> None:
    find = Find()
    find.answer(0, bare(50), bare(51), bare(52))
    asked = dict(requests(find.answer_rest(), GetRecord))
    assert ended(find.single.hear(50, FoundRecord(asked[peer_id(50)].id, b""))) == []
    assert ended(find.single.down(51)) == []
    (done,) = ended(find.single.wait(10.0))
    assert (done.asked, done.failed) == (7, 2)


def test_a_provider_that_serves_no_dht_does_not_enter_the_table_by_telling_its_record() -> None:
    find = Find()
    find.answer(0, bare(50))
    question = only(find.answer_rest(), GetRecord)
    find.single.hear(50, FoundRecord(question.id, provider(50).record))
    assert peer_id(50) not in find.single.engine.table


def test_providers_asked_are_bounded() -> None:
    find = Find(config=DhtConfig(max_record_requests=2))
    find.answer(0, *(bare(number) for number in range(50, 60)))
    assert receivers(find.answer_rest()) == [peer_id(50), peer_id(51)]


def test_providers_considered_are_bounded() -> None:
    find = Find(config=DhtConfig(max_found=3))
    find.answer(0, bare(49))
    assert len(found(find.answer(1, *(provider(number) for number in range(50, 60))))) == 2


def test_only_records_that_equal_what_is_asked_for_come() -> None:
    find = Find(where=(("gpu", "h100"), ("spot", True)))
    outputs = find.answer(
        0,
        provider(50, gpu="h100", spot=True, cpus=8),
        provider(51, gpu="h100"),
        provider(52, gpu="a100", spot=True),
        provider(53, gpu="h100", spot=1),
    )
    assert [peer for peer, _ in found(outputs)] == [peer_id(50)]


def test_a_whole_number_equals_itself_as_a_float() -> None:
    assert len(found(Find(where=(("cpus", 4),)).answer(0, provider(50, cpus=4.0)))) == 1


def test_it_ends_early_after_limit_providers() -> None:
    find = Find(limit=2)
    outputs = find.answer(0, provider(50), bare(60), provider(51), provider(52))
    assert len({peer for peer, _ in found(outputs)} & {peer_id(50), peer_id(51), peer_id(52)}) == 2
    assert len(ended(outputs)) == 1
    assert receivers(outputs) == []


def test_with_a_limit_all_are_equally_likely_whatever_the_order_of_the_holder() -> None:
    firsts = Counter[PeerId]()
    for seed in range(400):
        find = Find(limit=1, seed=seed)
        ((first, _),) = found(find.answer(0, *(provider(number) for number in range(50, 54))))
        firsts[first] += 1
    assert set(firsts) == {peer_id(number) for number in range(50, 54)}
    assert min(firsts.values()) > 60


def test_what_is_known_here_comes_first_the_own_announcement_too() -> None:
    single = Single()
    single.post(Announce(1, "svc", (("cpus", 2),)))
    single.hear(50, AddProvider(1, KEY, provider(50)))
    outputs = single.post(FindService(7, "svc"))
    assert [peer for peer, _ in found(outputs)] == [peer_id(0), peer_id(50)]
    assert [done.query for done in ended(outputs)] == [7]


def test_one_signature_is_checked_for_each_provider_not_for_each_holder() -> None:
    checked: list[PeerId] = []
    find = Find()
    reader = find.single.engine._reader  # pyright: ignore[reportPrivateUsage]
    verify = reader._verify  # pyright: ignore[reportPrivateUsage]

    def counting(peer: PeerId, data: bytes, signature: bytes) -> bool:
        checked.append(peer)
        return verify(peer, data, signature)

    reader._verify = counting  # pyright: ignore[reportPrivateUsage]
    for index in range(4):
        find.answer(index, provider(50), provider(51))
    assert checked == [peer_id(50), peer_id(51)]
