"""A small day of churn: it happens as told, nothing is lost, and it happens again the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from simulations import dht_churn
from simulations.churn_model import ChurnConfig
from simulations.dht_churn import Day, Scenario
from swarmp2p.dht.config import DhtConfig

SMALL = Scenario(nodes=50, hours=0.7, records=20, find_interval_s=5.0, sample_s=600.0, settle_s=120.0)


def test_under_churn_records_stay_findable_and_tables_true() -> None:
    report, samples = dht_churn.run(SMALL)
    assert report["missed"] == 0
    assert isinstance(report["finds"], int)
    assert report["finds"] > 400
    assert isinstance(report["crashes"], int)
    assert report["crashes"] >= 3
    assert len(samples) == 4
    assert min(sample.tables.complete for sample in samples) >= 0.99
    assert min(sample.tables.live for sample in samples) >= 0.96


def test_a_network_without_upkeep_forgets_its_neighbours() -> None:
    """The measures are not blind."""
    idle = DhtConfig(refresh_interval_s=1e9, max_failures=10**9, announce_interval_s=1e9)
    harsh = ChurnConfig(session_s=300.0, silent=1.0, notice_s=1e9)
    report, samples = dht_churn.run(replace(SMALL, hours=0.4, dht=idle, churn=harsh))
    assert isinstance(report["complete"], float)
    assert samples[-1].tables.live < 0.96
    assert report["missed"] or report["complete"] < 0.99


def test_two_days_with_one_seed_are_the_same() -> None:
    short = replace(SMALL, nodes=30, hours=0.2)
    one, other = dht_churn.run(short)[0], dht_churn.run(short)[0]
    for changing in ("wall_s", "engine_events_per_s"):
        del one[changing], other[changing]
    assert one == other
    assert dht_churn.run(replace(short, seed=2))[0]["trace_hash"] != one["trace_hash"]


def test_slots_are_found_as_after_a_long_time_of_coming_and_going() -> None:
    day = Day(replace(SMALL, nodes=2000))
    up = sum(slot.up for slot in day.churn.slots)
    assert len(day.churn.slots) == 900
    assert 250 <= up <= 350  # a third
    assert all(slot.until > 0.0 for slot in day.churn.slots)


def test_sessions_have_the_mean_that_is_told() -> None:
    churn, rng = ChurnConfig(), Random(1)
    assert churn.mean_session_s == 84 * 60.0
    drawn = [churn.session(rng) for _ in range(20_000)]
    assert abs(sum(drawn) / len(drawn) / churn.mean_session_s - 1.0) < 0.05
    assert abs(sorted(drawn)[10_000] / (20 * 60.0) - 1.0) < 0.1


def test_the_script_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "day.png"
    dht_churn.main(["--nodes", "20", "--hours", "0.1", "--records", "4", "--png", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["nodes", "20"]
    assert json.loads(lines[-1])["missed"] == 0


def test_nonsense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        dht_churn.main(["--nodes", "3"])
    assert "ten nodes" in capsys.readouterr().err
