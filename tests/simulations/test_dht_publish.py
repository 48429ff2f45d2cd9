"""The simulation of publishing, small."""

from __future__ import annotations

import json
from functools import cache

import pytest

from simulations import dht_publish
from simulations.report import Report

NODES, KEYS = 200, 800


@cache
def report() -> Report:
    return dht_publish.run(NODES, KEYS, 10, seed=1)


def value(name: str) -> float:
    found = report()[name]
    assert isinstance(found, int | float)
    return found


def test_a_sweep_takes_few_lookups_and_every_record_is_where_it_belongs() -> None:
    assert value("provided_keys") == KEYS
    assert value("provide_lookups") <= NODES / 5
    assert value("republish_lookups") <= NODES / 5
    assert value("provide_at_true_nearest") == value("at_true_nearest") == 1.0
    assert value("orphaned") == 0
    assert value("republish_add_providers") == 20 * KEYS


def test_optimistic_provides_are_faster_and_cheaper_and_land_at_the_same_nodes() -> None:
    assert value("optimistic_p50_rtts") < value("classic_p50_rtts")
    assert value("optimistic_messages") < 0.7 * value("classic_messages")
    assert value("optimistic_at_true_nearest") >= 0.99


def test_it_prints_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    picture = f"{tmp_path}/publish.png"
    dht_publish.main(["--nodes", "60", "--keys", "50", "--provides", "3", "--png", picture])
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["nodes"] == 60
    with open(picture, "rb") as file:
        assert file.read(4) == b"\x89PNG"
