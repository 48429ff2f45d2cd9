"""The table of provider kinds."""

from __future__ import annotations

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.providers import DEFAULT_KIND, KINDS, RankBy, kind
from swarmp2p.ray_bridge.events import Offer
from swarmp2p.ray_bridge.messages import MAX_LEASE_S, MIN_LEASE_S


def test_there_are_nine_kinds_each_with_a_row_of_its_own() -> None:
    assert list(KINDS) == [
        "individual",
        "data-centre",
        "edge-provider",
        "gaming-pc",
        "workstation",
        "gpu-cluster",
        "storage-centre",
        "edge-location",
        "regional-hub",
    ]
    assert len({row.description for row in KINDS.values()}) == 9


@pytest.mark.parametrize("name", KINDS)
def test_every_row_can_be_used_as_it_is(name: str) -> None:
    row = kind(name)
    assert row.name == name
    assert 0 < row.cpu_share <= 1
    assert MIN_LEASE_S <= row.lease_s <= MAX_LEASE_S
    assert row.notice_s > 0


def test_an_offer_is_of_the_default_kind() -> None:
    assert Offer().kind == DEFAULT_KIND
    assert DEFAULT_KIND in KINDS


def test_a_data_centre_gives_longer_leases_than_a_gaming_pc() -> None:
    assert kind("data-centre").lease_s > kind("gaming-pc").lease_s


def test_an_edge_provider_is_ranked_by_round_trip_time() -> None:
    assert kind("edge-provider").rank_by is RankBy.RTT


def test_an_unknown_kind_is_answered_with_the_names() -> None:
    with pytest.raises(UsageError, match=r"no provider kind 'mainframe'.*individual, data-centre"):
        kind("mainframe")
