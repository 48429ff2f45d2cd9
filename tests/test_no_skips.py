"""Where nothing may be skipped, a test that skips fails with its reason; elsewhere it says it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = """
import pytest

@pytest.mark.skipif(True, reason="lacks one thing")
def test_marked(): pass

def test_called(): pytest.skip("lacks another")

@pytest.mark.xfail(reason="known")
def test_expected(): raise AssertionError
"""


@pytest.mark.parametrize(
    ("forbidden", "counts"), [(True, "1 failed, 1 xfailed, 1 error"), (False, "2 skipped, 1 xfailed")]
)
def test_a_skip_is_a_failure_where_none_may_be(forbidden: bool, counts: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SWARMP2P_NO_SKIPS"}
    if forbidden:
        environment["SWARMP2P_NO_SKIPS"] = "1"
    tests = tmp_path / "test_those.py"
    tests.write_text(_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-ra",
        "-p",
        "tests.conftest",
        f"--rootdir={tmp_path}",
        "-c/dev/null",
    ]
    done = subprocess.run(
        [*command, str(tests)], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert counts in done.stdout, done.stdout + done.stderr
    assert "lacks one thing" in done.stdout
    assert "lacks another" in done.stdout
