"""The benchmarks run, and end in the object that they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final, cast

import pytest

from benchmarks import dht, gossip, mesh
from tests.interop.js_peers import check_installed
from tests.lab.requirements import require

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]


def run(name: str, *options: str) -> dict[str, object]:
    """What a benchmark prints as its last line."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return cast(dict[str, object], json.loads(done.stdout.splitlines()[-1]))


_METRICS: Final = {
    "delivered",
    "p50_ms",
    "p99_ms",
    "cpu_ms_per_delivery",
    "bytes_per_delivery",
    "packets_per_delivery",
    "deliveries_per_s",
}


def test_gossip_compares_with_libp2p() -> None:
    found = run("gossip", "--nodes=4", "--degree=2", "--seconds=0.5", "--settle=1", "--sides=ours,py-libp2p")
    assert list(found) == ["benchmark", "setup", "versions", "ours", "peers", "ratio", "bars"]
    ours, peers = cast(dict[str, float], found["ours"]), cast(dict[str, dict[str, float]], found["peers"])
    assert set(ours) == _METRICS
    assert ours["delivered"] == 1.0
    assert set(peers) == {"py-libp2p"}
    assert set(peers["py-libp2p"]) == _METRICS
    judged = cast(dict[str, dict[str, float | bool]], found["bars"])
    assert set(judged) == {"delivered", "cpu_ms_per_delivery"}
    assert judged["delivered"] == {"value": 1.0, "at_least": 1.0, "passed": True}


def test_gossip_compares_with_js_libp2p() -> None:
    check_installed()
    found = run("gossip", "--nodes=4", "--degree=2", "--seconds=0.5", "--settle=1", "--sides=ours,js-libp2p")
    peers = cast(dict[str, dict[str, float]], found["peers"])
    assert set(peers["js-libp2p"]) == _METRICS - {"bytes_per_delivery", "packets_per_delivery"}
    assert peers["js-libp2p"]["delivered"] == 1.0


@pytest.mark.parametrize(
    ("options", "metrics"),
    [
        (("--scenario=throughput", "--processes=2"), {"deliveries_per_s"}),
        (("--scenario=memory", "--processes=2", "--seconds=4"), {"delivered", "memory_mb", "memory_growth"}),
        (("--scenario=slow-reader", "--coalesce-ms=20"), {"delivered", "p99_ratio"}),
        (("--scenario=signals", "--providers=50"), {"core_share", "taken"}),
    ],
)
def test_gossip_scenarios(options: tuple[str, ...], metrics: set[str]) -> None:
    found = run("gossip", "--nodes=6", "--degree=2", "--seconds=1", "--settle=1", "--sides=ours", *options)
    ours = cast(dict[str, float], found["ours"])
    assert metrics <= set(ours)
    assert ours.get("delivered", 1.0) == 1.0
    assert ours.get("taken", 1.0) == 1.0
    assert set(cast(dict[str, object], found["bars"])) <= set(ours)


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
        ("gossip", ["--sides=py-libp2p"], "--sides are ours"),
        ("mesh", ["--sides=plain"], "--sides are ours"),
        ("mesh", ["--scenario=all"], "--scenario takes"),
        ("mesh", ["--mb=1"], "5 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    name: str, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        {"dht": dht.main, "gossip": gossip.main, "mesh": mesh.main}[name](options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_many_engines_store_and_get() -> None:
    found = run("dht_1024", "--nodes=40", "--operations=3", "--json")
    ours, peers = cast(dict[str, float], found["ours"]), cast(dict[str, dict[str, float]], found["peers"])
    assert ours["success"] == 1.0
    assert set(peers["hivemind"]) == {"store_mean_ms", "get_mean_ms"} <= set(ours)


def test_mesh_compares_with_wireguard() -> None:
    require("wg", "wireguard-go")
    small = ("--runs=1", "--mb=5", "--echoes=20", "--idle=20", "--cuts=1")
    found = run("mesh", "--sides=ours,wireguard-go", "--scenario=direct,cut,idle", *small)
    ours, peers = cast(dict[str, float], found["ours"]), cast(dict[str, dict[str, float]], found["peers"])
    direct = {"mb_per_s", "cpu_s_per_gb", "rtt_p50_ms"}
    assert set(ours) == {*direct, "cut_whole", "idle_forwards_mb", "idle_forwards_more_mb"}
    assert ours["cut_whole"] == 1.0
    assert set(peers) == {"wireguard-go"}
    assert set(peers["wireguard-go"]) == direct
    assert set(cast(dict[str, object], found["bars"])) == set(ours) - {"idle_forwards_more_mb"}
