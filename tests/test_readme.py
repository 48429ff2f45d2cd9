"""What README shows is true: its example runs, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs_and_is_short() -> None:
    (example,) = (
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "trio.run" in block
    )
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"found 12D3KooW\w+: {'gpus': 0, 'model': 'tiny'}", done.stdout)
    assert re.search(r"weights at /ip4/127\.0\.0\.1/tcp/\d+/p2p/12D3KooW", done.stdout)


def test_the_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}: " in makefile
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists()
