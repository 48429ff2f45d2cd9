"""The benchmarks run, and end in the object that they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final, cast

import pytest

from benchmarks import dht, gossip

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]


def run(name: str, *options: str) -> dict[str, object]:
    """What a benchmark prints as its last line."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return cast(dict[str, object], json.loads(done.stdout.splitlines()[-1]))


def test_gossip_compares_both_sides() -> None:
    found = run("gossip", "--nodes=4", "--degree=2", "--rate=10", "--seconds=0.5", "--settle=1.5", "--json")
    metrics = {
        "delivered",
        "p50_ms",
        "p99_ms",
        "cpu_ms_per_delivery",
        "bytes_per_delivery",
        "packets_per_delivery",
        "deliveries_per_s",
    }
    assert list(found) == ["benchmark", "setup", "versions", "ours", "peers", "ratio"]
    ours, peers = cast(dict[str, float], found["ours"]), cast(dict[str, dict[str, float]], found["peers"])
    assert set(ours) == metrics
    assert ours["delivered"] == 1.0
    assert set(peers) == {gossip.THEIRS}
    assert set(peers[gossip.THEIRS]) == metrics


def test_dht_measures_our_side() -> None:
    """py-libp2p's 24 hosts alone take longer to join than such a test should."""
    found = run(
        "dht", f"--side={dht.OURS}", f"--nodes={dht.LEAST_NODES}", "--provides=4", "--finds=8", "--rtt-ms=5"
    )
    figures = cast(dict[str, float], found["figures"])
    assert set(figures) == {
        "find_first_p50_ms",
        "find_first_p95_ms",
        "find_first_cpu_ms",
        "provide_p50_ms",
        "provide_p95_ms",
        "provide_cpu_ms",
        "finds_per_s",
        "refresh_ms",
        "success",
        "host_mb",
        "burst_stored",
        "find_rtts",
        "provide_rtts",
    }
    assert figures["success"] == figures["burst_stored"] == 1.0
    assert min(figures["find_rtts"], figures["provide_rtts"]) >= 1.0


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("dht", ["--nodes=8"], "take at least 24"),
        ("dht", ["--finds=0"], "take more than 0"),
        ("dht", ["--rtt-ms=-1"], "0 or more"),
        ("gossip", ["--nodes=5", "--degree=3"], "cannot all have 3 neighbours"),
        ("gossip", ["--rate=0"], "above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    name: str, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        {"dht": dht.main, "gossip": gossip.main}[name](options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_many_engines_store_and_get() -> None:
    found = run("dht_1024", "--nodes=40", "--operations=3", "--json")
    ours, peers = cast(dict[str, float], found["ours"]), cast(dict[str, dict[str, float]], found["peers"])
    assert ours["success"] == 1.0
    assert set(peers["hivemind"]) == {"store_mean_ms", "get_mean_ms"} <= set(ours)
