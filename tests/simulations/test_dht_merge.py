"""Two small groups with one shared seed merge, whatever kept them apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulations import dht_merge
from swarmp2p.transport.link import Partition


@pytest.mark.parametrize("apart", ["down", "cut"])
def test_two_groups_with_a_shared_seed_are_one_within_three_refreshes(apart: str) -> None:
    report, course = dht_merge.run(80, 1, apart, records=10)
    assert report["complete_before"] == 0.0  # nobody knew anybody of the other group
    assert report["complete"] == 1.0
    assert isinstance(report["merged_refreshes"], float)
    assert report["merged_refreshes"] <= 3.0
    assert report["found"] == 1.0
    assert course[0] == (0.0, 0.0)
    assert course[-1][1] == 1.0


def test_groups_without_a_shared_seed_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is not blind: it is the seed that joins them."""
    monkeypatch.setattr(dht_merge, "MAX_REFRESHES", 1.0)

    def never(link: Partition) -> None:
        pass

    monkeypatch.setattr(Partition, "heal", never)
    report, _ = dht_merge.run(40, 1, "cut", records=5)
    assert report["complete"] == 0.0
    assert report["found"] == 0.0


def test_the_script_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "merge.png"
    dht_merge.main(["--nodes", "4", "--png", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["complete"] == 1.0
    with pytest.raises(SystemExit, match="2"):
        dht_merge.main(["--nodes", "2"])
