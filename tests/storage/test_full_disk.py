from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A mount namespace of its own: nobody else sees the disk, and it is gone with the process.
_SPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.mark.slow
def test_a_peer_lives_through_a_full_disk_and_refuses_a_read_only_one(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=200k,mode=700 tmpfs {tmp_path}"
    tried = subprocess.run([*_SPACE, "sh", "-c", mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace can be made here ({tried.stderr.strip()}): run as root")
    run = subprocess.run(
        [*_SPACE, "sh", "-c", f"{mount} && exec {sys.executable} -m tests.storage.full_disk {tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    failing, read_only = run.stdout.splitlines()
    assert failing.startswith("failing: no space on the device, since 20")
    assert f"make room in {tmp_path}" in failing
    assert read_only.startswith(
        f"cannot use the state file {tmp_path}/state: read-only file system; name a file"
    )
    told = [line for line in run.stderr.splitlines() if "cannot be written" in line]
    assert len(told) == 1, "the log says it once"
