"""State to keep, for tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from swarmp2p.dht.keys import multihash_key
from swarmp2p.dht.messages import Provider
from swarmp2p.dht.state import Entry, EntryId, HeldProvider, HeldValue, OwnSequence, RememberedPeer
from tests.dht.network import address, peer_id

OWNER = peer_id(0)


def some_entries(count: int) -> list[Entry]:
    """Entries of every kind, `count` of most."""
    return [
        *(
            HeldProvider(
                multihash_key(b"%d" % n),
                Provider(peer_id(n), (address(n), address(n + 1)), b"r" * n),
                1e9 + n,
                n,
                n == 2,
            )
            for n in range(count)
        ),
        *(HeldValue(b"key %d" % n, b"value %d" % n, 1e9 + n) for n in range(count)),
        *(RememberedPeer(peer_id(n), (address(n),), 1e9 + n) for n in range(count)),
        OwnSequence(1_700_000_000_000),
    ]


def as_changes(entries: list[Entry]) -> list[tuple[EntryId, Entry | None]]:
    """The changes that keep these."""
    return [(entry.id, entry) for entry in entries]


@contextmanager
def fast_folder() -> Generator[Path, None, None]:
    """A folder in memory where there is one: thousands of files are made in it, each with its fsync."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield Path(folder)
