from __future__ import annotations

import json
import math
from random import Random

import pytest

from simulations import gossip_attack
from simulations.gossip_adversary import Plan, Sybil
from simulations.gossip_attack import ATTACKS, Attack, Sizes, scored, suffer
from swarmp2p.engine import PeerUp, Received, Send, Tick
from swarmp2p.gossip.messages import BareMessages, Prune, Rpc, Verdict

from ..gossip.network import message, peer_id, stub_verify

SMALL = Sizes(honest=25, sybils=100, sybil_links=10, rate=3.0, measured_s=5.0)
NAMED = {attack.name: attack for attack in ATTACKS}


@pytest.mark.parametrize("name", NAMED)
def test_honest_nodes_lose_nothing_and_hardly_any_time(name: str) -> None:
    with_sybils = suffer(NAMED[name], 1, SMALL, scored(SMALL.rate)).spread
    without = suffer(NAMED[name], 1, SMALL, scored(SMALL.rate), sybils=False).spread
    assert with_sybils.messages == without.messages > 0
    assert with_sybils.share >= 0.999
    if name == "infiltration":
        assert with_sybils.ms(0.99) <= 3000.0  # by gossip alone, within heartbeats
    else:
        assert with_sybils.ms(0.99) <= 2.0 * without.ms(0.99)


def test_who_is_silent_in_meshes_loses_them_only_where_scores_are_kept() -> None:
    sizes = Sizes(honest=25, sybils=100, sybil_links=10, rate=5.0, measured_s=25.0)
    with_scores = suffer(NAMED["eclipse all"], 1, sizes, scored(sizes.rate))
    without = suffer(NAMED["eclipse all"], 1, sizes, gossip_attack.UNSCORED)
    assert with_scores.sybil_share < 0.05 < 0.1 < without.sybil_share


def test_the_script_reports_all_and_repeats() -> None:
    chosen = [NAMED["censor"]]
    first, second = (gossip_attack.run(3, SMALL, chosen, unscored=False)[0] for _ in range(2))
    assert first | {"wall_s": 0} == second | {"wall_s": 0}
    assert first["censor_delivered"] == 1.0


def test_the_script_prints_a_table_and_draws(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    picture = tmp_path_factory.mktemp("attack") / "attack.png"
    sizes = "--honest 25 --sybils 10 --sybil-links 5 --rate 2 --measured 2"
    gossip_attack.main([*sizes.split(), "--attacks", "storm", "--png", str(picture)])
    assert picture.stat().st_size > 1000
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["storm_missed"] == 0
    assert "storm_unscored_delivered" in report


@pytest.mark.parametrize("arguments", [["--honest", "20"], ["--sybils", "0"], ["--rate", "0"]])
def test_sizes_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gossip_attack.main(arguments)


# What Sybils do ---------------------------------------------------------------------------------------------


def sybil(plan: Plan) -> Sybil:
    """One that is connected to peers 1, 2 and 3."""
    engine = Sybil(peer_id(0), "t", plan, Random(1))
    for number in (1, 2, 3):
        (hello,) = engine.handle(PeerUp(peer_id(number)), 0.0)
        assert hello == Send(peer_id(number), Rpc(subscriptions=(("t", True),), graft=("t",)))
    return engine


def beat(engine: Sybil) -> list[Rpc]:
    """What it says to peer 1 at its next beat."""
    now = engine.deadline()
    sent = [output for output in engine.handle(Tick(), now) if isinstance(output, Send)]
    assert engine.deadline() == now + 1.0
    return [send.message for send in sent if send.to == peer_id(1) and isinstance(send.message, Rpc)]


def test_until_it_strikes_a_sybil_passes_messages_on_once_to_whom_it_is_meshed_with() -> None:
    engine = sybil(Plan(strike_s=10.0))
    engine.handle(Received(peer_id(2), Rpc(prune=(Prune("t", 60),))), 1.0)
    heard = Received(peer_id(1), Rpc(publish=(message(1, 1),)))
    assert engine.handle(heard, 2.0) == [Send(peer_id(3), Rpc(publish=(message(1, 1),)))]
    assert engine.handle(heard, 2.0) == []
    assert engine.handle(Received(peer_id(1), Rpc(publish=(message(1, 2),))), 10.0) == []


def test_a_censor_drops_the_messages_of_one_alone() -> None:
    engine = sybil(Plan(censored=(peer_id(7),)))
    assert engine.handle(Received(peer_id(1), Rpc(publish=(message(7, 1),))), 1.0) == []
    assert len(engine.handle(Received(peer_id(1), Rpc(publish=(message(8, 1),))), 1.0)) == 2


def test_it_comes_back_when_the_backoff_is_over_and_an_impatient_one_at_once() -> None:
    patient, impatient = sybil(Plan()), sybil(Plan(impatient=True))
    for engine in (patient, impatient):
        engine.handle(Received(peer_id(1), Rpc(prune=(Prune("t", 5),))), 0.5)
    grafted_at = math.inf
    while grafted_at == math.inf:
        now = patient.deadline()
        grafted_at = now if beat(patient) == [Rpc(graft=("t",))] else math.inf
    assert 6.5 <= grafted_at < 7.5
    assert beat(impatient) == [Rpc(graft=("t",))]


def test_spam_is_forged_ids_that_nobody_has_and_questions() -> None:
    engine = sybil(Plan(lies=4, forged=2, asks=3, storm=True))
    engine.handle(Received(peer_id(2), Rpc(publish=(message(2, 1),))), 0.0)
    said = beat(engine)
    forged = [each for rpc in said for each in rpc.publish]
    assert len(forged) == 2
    assert all(BareMessages().check(each, stub_verify) is Verdict.FORGED for each in forged)
    assert [len(have.ids) for rpc in said for have in rpc.ihave] == [4]
    assert [each for rpc in said for each in rpc.iwant] == [message(2, 1).id] * 3
    assert [(bool(rpc.prune), bool(rpc.graft)) for rpc in said[:2]] == [(True, False), (False, True)]


def test_sybils_of_one_host_share_its_address_and_are_a_crowd() -> None:
    attack = Attack("few", Plan(strike_s=2.0), come_s=2.0, hosts=1)
    outcome = suffer(attack, 1, Sizes(30, 60, 30, 2.0, 3.0), scored(2.0))
    assert outcome.sybil_share == 0.0
