"""A leased worker's task tries to get out of its jail, in every way on the list; as root's worker, and as anybody's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
import trio

from swarmp2p.ray_bridge.cells import cell_problem
from swarmp2p.ray_bridge.jails import jail_problem
from tests.ray_bridge import jailbreak, somebody

PROBLEM = jail_problem() or trio.run(cell_problem)
AS_ROOT = os.geteuid() == 0
SOMEBODY = 54321

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]

AS_LISTED = {
    **{name: "bounded" if name in jailbreak.BOUNDED else "denied" for name in jailbreak.PROBES},
    **dict.fromkeys(jailbreak.OUTSIDE, "bounded"),
}


@pytest.fixture
def place() -> Generator[Path, None, None]:
    """A directory with a home in it, which everybody can get to."""
    directory = Path(tempfile.mkdtemp(prefix="jailbreak-", dir="/tmp"))
    (directory / "home").mkdir()
    (directory / "home" / ".bashrc").write_text("# the owner's")
    yield directory
    shutil.rmtree(directory)


def attempts(place: Path, *before: str) -> dict[str, str]:
    """What became of each probe. before: what goes before the command."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
    done = subprocess.run(
        [*before, sys.executable, jailbreak.__file__, "swarm", str(place)],
        env={**kept, "HOME": str(place / "home")},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nobody_gets_out_of_a_leased_workers_jail(place: Path) -> None:
    assert attempts(place) == AS_LISTED


@pytest.mark.skipif(not AS_ROOT, reason="needs root: sudo -E env PATH=$PATH python -m pytest")
def test_nor_where_the_lender_is_somebody_without_any_right(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    private: Sequence[str] = ("unshare", "--mount", "--propagation", "private")
    assert attempts(place, *private, sys.executable, somebody.__file__, str(SOMEBODY)) == AS_LISTED
