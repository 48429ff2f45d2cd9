"""What README shows is true: its example runs, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


LIBRARY, GOSSIP = (
    block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "trio.run" in block
)


def printed(example: str) -> str:
    """What an example prints; nothing else may it say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_library_example_runs_and_is_short() -> None:
    assert len([line for line in LIBRARY.splitlines() if line.strip()]) <= 15
    told = printed(LIBRARY)
    assert re.search(r"found 12D3KooW\w+: {'gpus': 0, 'model': 'tiny'}", told)
    assert re.search(r"weights at /ip4/127\.0\.0\.1/tcp/\d+/p2p/12D3KooW", told)


def test_the_gossip_example_runs_and_is_short() -> None:
    assert len([line for line in GOSSIP.splitlines() if line.strip()]) <= 20
    told = printed(GOSSIP)
    assert re.search(r"^12D3KooW\w+ says hello$", told, re.MULTILINE)
    assert re.search(r"^ask 12D3KooW\w+: 3 in flight \d+\.\d s ago", told, re.MULTILINE)


def test_the_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}: " in makefile
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists()
