"""The limit of open files: a user reads that it is reached, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from swarmp2p import Identity
from swarmp2p.descriptors import remedy
from swarmp2p.errors import IdentityFileError, StateFileError
from swarmp2p.storage.state_file import StateFile
from tests.no_descriptors import no_descriptors


def test_the_limit_is_the_remedy_only_where_it_is_the_reason() -> None:
    assert "ulimit -n" in remedy(OSError(errno.EMFILE, "Too many open files"), "change the port")
    assert "fs.file-max" in remedy(OSError(errno.ENFILE, "Too many open files in system"), "change the port")
    assert remedy(OSError(errno.EADDRINUSE, "in use"), "change the port") == "change the port"
    assert remedy(ValueError(), "change the port") == "change the port"


def test_files_of_a_peer_say_it(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path / "key")
    with no_descriptors():
        with pytest.raises(IdentityFileError, match="ulimit -n"):
            Identity.load(tmp_path / "key")
        with pytest.raises(IdentityFileError, match="ulimit -n"):
            identity.save(tmp_path / "other")
        with pytest.raises(StateFileError, match="ulimit -n"):
            StateFile.open(tmp_path / "state", identity.peer_id)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
