"""A cluster's files: copied whole while somebody writes them, and written where there is no cluster yet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarmp2p.errors import UsageError
from swarmp2p.snapshots.copying import fingerprint, holds_cluster, read_cluster, write_cluster

# Writes the same number into two files, over and over, as the holder of RocksDB's lock.
WRITER = """
import fcntl, os, sys
os.chdir(sys.argv[1])
lock = open("LOCK", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
files = [os.open(name, os.O_WRONLY | os.O_CREAT, 0o600) for name in ("1.log", "2.log")]
number = 0
while True:
    number += 1
    for each in files:
        os.pwrite(each, b"%019d\\n" % number, 0)
"""


def until(true: Callable[[], bool]) -> bool:
    """Whether it is true within 20 seconds."""
    ends = time.monotonic() + 20
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    kept = tmp_path / "kept"
    (kept / "gcs" / "kv").mkdir(parents=True, mode=0o700)
    kept.chmod(0o700)
    for name, data in {
        "token": "t" * 64,
        "port": "4711",
        "cluster": "{}",
        "lock": "",
        "gcs/session_name": "session",
        "gcs/kv/CURRENT": "MANIFEST-000005\n",
        "gcs/kv/LOCK": "",
        "gcs/kv/LOG": "much",
        "gcs/kv/LOG.old.1": "much",
        "gcs/kv/000007.sst": "table",
    }.items():
        (kept / name).write_text(data)
    return kept


def test_what_is_needed_comes_back(cluster: Path, tmp_path: Path) -> None:
    files = read_cluster(cluster)
    assert sorted(files) == [
        "cluster",
        "gcs/kv/000007.sst",
        "gcs/kv/CURRENT",
        "gcs/session_name",
        "port",
        "token",
    ]
    assert sorted(os.listdir(cluster)) == ["cluster", "gcs", "lock", "port", "token"]
    other = tmp_path / "machine" / "other"
    write_cluster(other, files)
    assert read_cluster(other) == files
    assert other.stat().st_mode & 0o777 == 0o700
    for name in files:
        assert (other / name).stat().st_mode & 0o777 == 0o600


def test_a_change_is_seen(cluster: Path) -> None:
    before = fingerprint(cluster)
    (cluster / "gcs" / "kv" / "LOG").write_text("more of it")
    assert fingerprint(cluster) == before
    (cluster / "gcs" / "kv" / "000008.log").write_text("x")
    assert fingerprint(cluster) != before


def test_who_writes_stands_still_meanwhile_and_goes_on(cluster: Path) -> None:
    folder = cluster / "gcs" / "kv"
    bystander = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
    try:
        assert until(lambda: (folder / "2.log").exists() and (folder / "2.log").stat().st_size > 0)
        for _ in range(20):
            files = read_cluster(cluster)
            one, two = (int(files[f"gcs/kv/{n}.log"] or b"0") for n in (1, 2))
            assert one - two in (0, 1)  # between two writes, as after a kill -9
        assert state_of(writer.pid) != "T"
        assert state_of(bystander.pid) != "T"
        reached = (folder / "2.log").read_bytes()
        assert until(lambda: (folder / "2.log").read_bytes() != reached)
    finally:
        for each in (writer, bystander):
            each.send_signal(signal.SIGKILL)
            each.wait()


def test_a_cluster_that_is_there_is_never_written_over(cluster: Path, tmp_path: Path) -> None:
    files = read_cluster(cluster)
    with pytest.raises(UsageError, match="already"):
        write_cluster(cluster, {**files, "token": b"another"})
    assert read_cluster(cluster) == files
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o755)
    with pytest.raises(UsageError, match="chmod 700"):
        write_cluster(open_to_all, files)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="name another directory"):
        write_cluster(tmp_path / "file" / "below", files)
    assert not holds_cluster(open_to_all)


def test_what_was_half_written_is_no_cluster(cluster: Path, tmp_path: Path) -> None:
    """The port comes last: a restore that is killed can be done again."""
    files = read_cluster(cluster)
    other = tmp_path / "other"
    write_cluster(other, {name: data for name, data in files.items() if name != "port"})
    assert not holds_cluster(other)
    (other / "gcs" / "kv" / "stray").write_text("")
    write_cluster(other, files)
    assert read_cluster(other) == files
