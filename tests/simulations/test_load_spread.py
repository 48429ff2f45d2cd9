"""Very many providers' load signals: the models beside the engines, at a size of seconds."""

from __future__ import annotations

from random import Random

import pytest

from simulations.load_spread import SIZES, Scene, run_engines, signal_bytes, signals_per_s, spread
from swarmp2p.gossip.load import LoadConfig, ShardConfig

SHARDS = ShardConfig()
SMALL = ShardConfig(split_above=16, merge_below=4, followed=2)


def test_what_a_shard_carries_is_bounded_whatever_the_size() -> None:
    config = LoadConfig()
    for providers in (*SIZES, 1_000_000, 10_000_000):
        scene = Scene(providers, 10, 1.0, 1, SHARDS)
        assert providers / (1 << scene.depth) <= SHARDS.split_above
        assert signals_per_s(scene, config) <= config.sender.topic_rate
    assert signal_bytes() < 360


def test_no_provider_has_much_more_than_the_mean() -> None:
    loads = spread(Scene(5000, 50, 50.0, 48, SHARDS), Random(1))
    assert sum(loads.now) == 5000 * 50
    assert 1.0 < loads.busiest < 1.25
    assert loads.idlest > 0.3


def test_it_repeats() -> None:
    scene = Scene(1000, 20, 10.0, 12, SHARDS)
    assert spread(scene, Random(3)) == spread(scene, Random(3))
    assert spread(scene, Random(3)) != spread(scene, Random(4))


def test_engines_find_their_shards_and_load_their_providers_as_the_model_does() -> None:
    scene = Scene(40, 4, 6.0, 6, SMALL)
    measured = run_engines(scene, 1)
    assert scene.depth == 2
    assert sum(depth == 2 for depth in measured.depths) >= 20, measured.depths
    assert measured.sample == pytest.approx(20, abs=8), "two of four shards"
    assert sum(measured.loads.now) == 40 * 6 // 2, "half of the ramp"
    # A request or two more: few of them are a rough measure.
    assert measured.loads.peak <= spread(scene, Random(1)).peak + 2 / 3
    assert measured.provider_new <= 1.5 * 10 / 4.75 * 2
