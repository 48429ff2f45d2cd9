"""Files that are replaced whole, and locks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from swarmp2p.private_file import replace_private, take_lock


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole_and_is_its_users_alone(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o644)
    replace_private(path, b"one ", b"two", durable=durable)
    assert path.read_bytes() == b"one two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        replace_private(folder, b"contents")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError):
        replace_private(tmp_path / "none" / "file", b"contents")


def test_a_lock_is_one_descriptors_until_that_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = take_lock(path)
    assert lock is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert take_lock(path) is None
    os.close(lock)
    again = take_lock(path)
    assert again is not None
    os.close(again)
    with pytest.raises(FileNotFoundError):
        take_lock(tmp_path / "none" / "lock")
