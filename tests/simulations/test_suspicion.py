"""Crashes are noticed soon, and nobody is accused by who stalled; small versions of simulations/suspicion.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulations import suspicion
from simulations.report import Report
from simulations.stalls import Stalls
from swarmp2p.engine import Received, Tick
from swarmp2p.gossip.load import FollowLoads
from swarmp2p.gossip.load_wire import LoadsRequest
from swarmp2p.node import NodeCommand, NodeOutput
from tests.engine_cases.node import node_engine
from tests.made_up import PEERS

SMALL = suspicion.Scenario(nodes=18, providers=14, stalled=6, seconds=20.0, settle_s=12.0)


@pytest.fixture(scope="module")
def outcome() -> Report:
    return suspicion.run(SMALL)[0]


def test_a_crash_is_known_to_all_within_four_seconds(outcome: Report) -> None:
    assert outcome["missed"] == 0
    assert isinstance(outcome["known_all_s"], float)
    assert outcome["known_all_s"] <= 4.0


def test_nodes_that_stalled_accuse_nobody_falsely(outcome: Report) -> None:
    """A fiftieth of what a fixed time-out of equal speed does."""
    fixed = outcome["fixed_false"]
    assert isinstance(fixed, int)
    assert fixed >= 20, "it has something to show"
    assert isinstance(outcome["ratio"], float)
    assert outcome["ratio"] <= 0.02


def test_the_script_prints_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "suspicion.png"
    suspicion.main(
        ["--nodes", "13", "--providers", "11", "--seconds", "1", "--stalled", "0", "--png", str(picture)]
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["fixed_false"] == report["false"] == 0
    for wrong in (["--nodes", "10"], ["--providers", "10"], ["--stalled", "91"]):
        with pytest.raises(SystemExit, match="2"):
            suspicion.main(wrong)


def test_a_stalled_node_handles_nothing_and_then_its_own_tick_first() -> None:
    handled: list[tuple[float, object]] = []
    engine = node_engine(PEERS[0], 1)
    stalls = Stalls[NodeCommand, NodeOutput](engine)
    stalls.plan(0.6, 4.0)
    inner = engine.handle

    def handle(event: object, now: float) -> object:
        handled.append((now, event))
        return inner(event, now)  # type: ignore[arg-type]

    setattr(engine, "handle", handle)  # noqa: B010
    stalls.handle(FollowLoads(), 0.5)
    due = engine.deadline()
    assert 0.6 < due < 4.0
    assert stalls.deadline() == 4.0
    message = Received(PEERS[1], LoadsRequest(1))
    assert stalls.handle(Tick(), due) == stalls.handle(message, 2.5) == ()
    assert stalls.deadline() == 4.0
    assert stalls.handle(Tick(), 4.0)
    assert handled == [(0.5, FollowLoads()), (4.0, Tick()), (4.0, message)]
    assert not stalls.stalled_since(0.0, 0.5)
    assert stalls.stalled_since(3.0, 10.0)
