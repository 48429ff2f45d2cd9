"""Which grant a borrower shows to which lender. Pure.

A lender's service record says whose grants count there, in a short form: eight hexadecimal digits of a hash for each
of up to four owners, and "+" when there are more. Its own key's grants count at every lender. So a borrower shows a
grant only where it can count, and nobody else learns of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from ..identity import PeerId
from .events import Need
from .grants import Grant

OWNERS_ATTRIBUTE: Final = "grantors"
"""Of a lender's service record; absent where only its own grants count."""

_MAX_NAMED: Final = 4
_DIGITS: Final = 8
_CLOCK_ERROR_S: Final = 30.0


def owners_text(owners: Iterable[PeerId]) -> str:
    """What a lender's record says of the owners that it trusts, in at most 37 characters."""
    ordered = sorted(owners)
    named = [_short(owner) for owner in ordered[:_MAX_NAMED]]
    return ",".join([*named, *(["+"] if len(ordered) > _MAX_NAMED else [])])


def chain_for(
    grants: Iterable[Grant], provider: PeerId, owners: str, need: Need, now: float
) -> tuple[bytes, ...]:
    """The links to show to a provider: of the grants that may count there for this need, the one that lasts longest;
    () when there is none. owners: what the provider's record says."""
    named = owners.split(",")
    fitting = [
        grant
        for grant in grants
        if (grant.owner == provider or "+" in named or _short(grant.owner) in named)
        and not grant.is_ticket
        and grant.terms.refusal(need, provider, now, _CLOCK_ERROR_S) is None
    ]
    return max(fitting, key=lambda grant: grant.terms.expires).envelopes if fitting else ()


def _short(owner: PeerId) -> str:
    return hashlib.sha256(owner).hexdigest()[:_DIGITS]
