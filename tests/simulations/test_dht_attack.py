from __future__ import annotations

import pytest

from simulations import dht_attack
from simulations.adversary import Gang, SybilPool, nearest_places
from swarmp2p.dht.keys import key_id, peer_key
from swarmp2p.engine import PeerInfo
from swarmp2p.transport.sim_peers import sim_peer


def test_the_formula_is_s_kademlias() -> None:
    estimates = [dht_attack.skademlia(0.2, paths) for paths in (1, 4, 8)]
    assert estimates == [
        pytest.approx(0.41, abs=0.001),
        pytest.approx(0.878, abs=0.001),
        pytest.approx(0.985, abs=0.001),
    ]


def test_nearest_places_equal_a_sort() -> None:
    ids = sorted(peer_key(sim_peer(index)) for index in range(300))
    for target in (key_id(b"%d" % number) for number in range(50)):
        for count in (1, 20, 300, 400):
            expected = sorted(range(300), key=lambda place: ids[place] ^ target)[:count]
            assert nearest_places(ids, target, count) == expected


def test_adversaries_name_one_another_but_not_themselves() -> None:
    gang = Gang(3)
    members = [PeerInfo(sim_peer(index), (b"at",)) for index in range(10)]
    for info in members:
        gang.join(info)
    target = key_id(b"target")
    nearest = sorted(members, key=lambda info: peer_key(info.peer) ^ target)
    assert list(gang.named(target, sim_peer(99))) == nearest[:3]
    assert list(gang.named(target, nearest[1].peer)) == [nearest[0], nearest[2], nearest[3]]


def test_among_liars_lookups_over_eight_paths_succeed() -> None:
    lies = dht_attack.false_answers(120, 0.3, 1, 15)
    assert lies[8].reached >= 0.95
    assert lies[8].found >= 0.95


def test_sybils_deny_finds_only_of_those_who_do_not_go_round_them() -> None:
    seen = dht_attack.sybils(120, 20, 1, SybilPool(60 * 120), 10)
    assert seen.plain.finds == seen.defended.finds == seen.stored_before.finds == 10
    assert (seen.plain.denied, seen.defended.denied, seen.stored_before.denied) == (10, 0, 0)


def test_the_script_reports_all_and_repeats() -> None:
    first, second = (dht_attack.run([80], 3, 3, shares=(0.2,), sybils_a_key=(20,)) for _ in range(2))
    assert {name: value for name, value in first.items() if name != "wall_s"} == {
        name: value for name, value in second.items() if name != "wall_s"
    }
    assert first["s_kademlia_20pct_d8"] == dht_attack.skademlia(0.2, 8)
    assert first["finds_denied_20_sybils_of_80"] == 0.0
