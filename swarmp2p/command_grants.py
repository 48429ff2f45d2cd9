"""The grants that commands use: where a key's are kept, and which of them a command's peer may show to lenders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import home
from .errors import GrantError
from .grant_file import GrantFile, grants_path
from .identity import Identity, verify
from .ray_bridge.grants import MAX_LINKS, Grant

if TYPE_CHECKING:
    from .peer import Peer


def grants_file(key: Path) -> GrantFile:
    """The file of the peer with this key."""
    return GrantFile(grants_path(key.with_name(f"{key.name}.state")))


def grants_to_show(texts: Sequence[str], peer: Peer) -> list[Grant]:
    """What a command's peer may show to lenders: the grants that it was told, those that it holds, and those that this
    machine's own peer (`swarmp2p join`) holds, passed on to it. Raises GrantError, UsageError."""
    now, held = peer.now(), list(peer.grants)
    for text in texts:
        grant = Grant.parse(text, verify).redeem(peer.id, now)
        if grant.holder != peer.id:
            raise GrantError(
                f"it was given to {grant.holder}", f"ask for one for {peer.id}, or for a secret one"
            )
        held.append(grant)
    path = home() / "key"
    if not os.path.lexists(path):
        return held
    own = Identity.load(path)
    for grant in grants_file(path).read().held:
        usable = grant.holder == own.peer_id != peer.id and len(grant.links) < MAX_LINKS
        if usable and grant.terms.expires > now:
            held.append(grant.narrow(own, peer.id, grant.terms, now))
    return held
