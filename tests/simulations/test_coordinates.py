"""The script prints and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulations import coordinates


def test_the_script_prints_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinates, "CYCLES", 20)
    monkeypatch.setattr(coordinates, "STEPS", (1, 20))
    monkeypatch.setattr(coordinates, "DRIFT_CYCLES", 20)
    picture = tmp_path / "coordinates.png"
    coordinates.main(["--seeds", "1", "--png", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["line_mean_error_bar"] == 0.0031
    with pytest.raises(SystemExit, match="2"):
        coordinates.main(["--seeds", "0"])
