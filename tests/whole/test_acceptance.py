"""Ray's own behaviour: one program runs unchanged on a swarm cluster and on a local one, with equal results."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.bridge_fleet import BridgePeer
from benchmarks.bridge_places import near
from benchmarks.bridge_ray_start import by_hand
from benchmarks.report import ROOT

pytestmark = pytest.mark.slow

PROGRAM: Final = ROOT / "tests" / "whole" / "acceptance.py"
_WORKERS: Final = 3
_LIMIT_S: Final = 240.0

_WHEEL: Final = "cutlery-1.0-py3-none-any.whl"
_WHEEL_FILES: Final = {
    "cutlery.py": "FORK = 'four tines'\n",
    "cutlery-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: cutlery\nVersion: 1.0\n",
    "cutlery-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "cutlery-1.0.dist-info/RECORD": "",
}


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """The program's working directory."""
    missing = [name for name in ("pandas", "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"Ray Data needs {' and '.join(missing)}: pip install -e '.[dev]'")
    found = tmp_path / "kitchen"
    found.mkdir()
    (found / "recipe.py").write_text("def name() -> str:\n    return 'soup'\n")
    (found / "ingredients.txt").write_text("water, salt\n")
    with zipfile.ZipFile(found / _WHEEL, "w") as wheel:
        for name, content in _WHEEL_FILES.items():
            wheel.writestr(name, content)
    return found


def program(kitchen: Path, environment: dict[str, str], *before: str) -> dict[str, Any]:
    """What the program prints. before: what runs it."""
    done = subprocess.run(
        [*before, sys.executable, str(PROGRAM), str(kitchen)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def on_the_swarm(kitchen: Path) -> dict[str, Any]:
    """Three lenders, and `swarmp2p run`."""
    with near(_WORKERS) as places, ExitStack() as stack:
        lenders: list[BridgePeer] = []
        for place in places:
            known = [one.address for one in lenders[:1]]
            lenders.append(BridgePeer(place, known, {"cpus": 1}))
            stack.callback(lenders[-1].end)
        run: Sequence[str] = (
            "run",
            "--gang",
            "--workers",
            str(_WORKERS),
            "--bootstrap",
            lenders[0].address,
            "--",
        )
        return program(kitchen, {}, sys.executable, "-m", "swarmp2p", *run)


def by_ray_start(kitchen: Path) -> dict[str, Any]:
    """Nodes of the same sizes by the `ray` command, on this machine."""
    with by_hand() as (hand, _):
        hand.head()
        for number in range(_WORKERS):
            hand.worker(2 + number)
        return program(kitchen, hand.environment)


@pytest.mark.timeout(300)  # twice Ray, three lenders, and a busy machine
def test_a_ray_program_runs_on_a_swarm_as_on_a_local_cluster(kitchen: Path) -> None:
    local, swarm = by_ray_start(kitchen), on_the_swarm(kitchen)
    assert swarm == local
    assert local["total"] == sum(number * number for number in range(100))
    assert local["nodes"] == _WORKERS
    assert local["whole"] == [True] * _WORKERS
    assert local["cooked"] == [["soup", "water, salt", "four tines", "7"]] * _WORKERS
    assert sum(local["counts"]) == 1797
