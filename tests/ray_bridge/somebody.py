"""Runs a program as a user without any right. A program of its own, for root, in a mount namespace of its own:

    unshare --mount --propagation private python somebody.py UID COMMAND...

What the program needs (this Python, its libraries, this checkout) may be below directories that are root's alone: here,
and nowhere else, such a directory is replaced by one that has nothing but that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

NEEDED = (Path(sys.prefix), Path(os.path.realpath(sys.base_prefix)), Path(__file__).resolve().parents[2])


def shut(path: Path) -> Path | None:
    """The uppermost directory above a path that only its owner may pass."""
    return next((above for above in reversed(path.parents) if not above.stat().st_mode & 0o001), None)


def open_up() -> None:
    """Make what is needed reachable for everybody."""
    closed: dict[Path, list[tuple[Path, str]]] = {}
    for path in dict.fromkeys(NEEDED):
        above = shut(path)
        if above is not None:
            kept = tempfile.mkdtemp(prefix="somebody-")
            subprocess.run(["mount", "--bind", str(path), kept], check=True)
            closed.setdefault(above, []).append((path, kept))
    for above, inside in closed.items():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(above)], check=True)
        for path, kept in inside:
            path.mkdir(mode=0o755, parents=True)
            subprocess.run(["mount", "--move", kept, str(path)], check=True)
            os.rmdir(kept)


if __name__ == "__main__":
    os.umask(0o022)
    open_up()
    ids = ["--reuid", sys.argv[1], "--regid", sys.argv[1], "--clear-groups"]
    os.execvp("setpriv", ["setpriv", *ids, *sys.argv[2:]])
