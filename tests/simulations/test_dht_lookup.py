"""The script of lookups, small: it shows what it is for, and repeats."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from simulations import dht_lookup
from simulations.dht_lookup import SETTINGS, Seen
from simulations.report import Report

NODES, LOOKUPS = 300, 40


@cache
def ran() -> tuple[Report, dict[str, Seen]]:
    return dht_lookup.run(NODES, 1, LOOKUPS, SETTINGS)


def number(name: str) -> float:
    value = ran()[0][name]
    assert isinstance(value, int | float)
    return value


def test_with_perfect_tables_the_bars_hold_in_a_small_swarm_too() -> None:
    assert number("live_found") == number("live_exact") == 1.0
    assert number("live_find_mean_rtts") <= 1.3  # nearly every node knows the holders
    assert number("live_lookup_p95_rtts") <= 4.0
    assert number("live_messages_p95") <= 37
    assert ran()[0]["bars_missed"] == []


def test_dead_entries_cost_little() -> None:
    assert number("dead_found") == 1.0
    assert number("dead_find_p95_rtts") <= 3.0
    assert number("dead_lookup_p95_rtts") <= 8.0
    assert 30 < number("dead_messages_p95") <= 40


def test_a_dial_costs_its_round_trip() -> None:
    assert number("live_dialled_find_mean_rtts") > number("live_find_mean_rtts")
    assert number("live_dialled_lookup_p50_rtts") == pytest.approx(
        2 * number("live_lookup_p50_rtts"), abs=1.0
    )


def test_probes_are_few_beside_requests() -> None:
    """A request and its answer are two; without bounds probes made it fifty."""
    assert number("live_sent_for_each_message") < 3.0


def test_it_repeats() -> None:
    again, _ = dht_lookup.run(NODES, 1, LOOKUPS, SETTINGS[:2])
    assert {name: ran()[0][name] for name in again if name not in ("wall_s", "bars_missed")} == {
        name: again[name] for name in again if name not in ("wall_s", "bars_missed")
    }


def test_it_prints_a_table_and_json_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "lookups.png"
    dht_lookup.main(["--nodes", "60", "--lookups", "3", "--png", str(picture), "--settings", "live"])
    printed = capsys.readouterr().out
    assert "live find mean rtts" in printed
    assert "<= 1.85" in printed
    assert json.loads(printed.splitlines()[-1])["nodes"] == 60
    assert picture.read_bytes().startswith(b"\x89PNG")
