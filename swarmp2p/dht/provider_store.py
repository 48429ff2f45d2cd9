"""Who provides what: the provider records that other peers gave us to keep.

One record for each key and provider, the newest; it lives until its time is over (`ttl_s`, or the expiry of
the service record that came with it, if that is sooner) or until it is withdrawn. The sender of a record is
its provider, authenticated by the connection, or the record was verified (handed.py), so nothing is verified here:
whoever uses a service record checks it.

Bounds. Renewing a record that is held is never refused. When there are too many providers of one key, the one
renewed longest ago makes room, so that a hot key shows those that came last. When there are too many keys, or
too many records in all, the farthest key from the own id makes room: its longest unrenewed provider, or all
of it. A new key that would be the farthest itself is refused. Of a provider's addresses the first 1 KiB are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Final

from ..identity import PeerId
from .messages import Provider
from .nearest import NearestKeys
from .provider_record import Claim, read_any_claim
from .records import RecordClaim
from .state import HeldProvider, Journal

_LAST: Final = 16
_MAX_ADDRESS_BYTES: Final = 1024  # of one record


class ProviderStore:
    """Provider records by key.

    own: the own id. ttl_s: life of a record after its last renewal. clock_error_s: by how much a service
    record may seem expired. max_keys, max_per_key, max_records: see the module's docstring.

    journal: told of each change, when there is one (state.py).
    """

    journal: Journal | None = None

    def __init__(
        self,
        own: int,
        *,
        ttl_s: float,
        clock_error_s: float,
        max_keys: int,
        max_per_key: int,
        max_records: int,
    ) -> None:
        self._ttl_s, self._clock_error_s = ttl_s, clock_error_s
        self._max_keys, self._max_per_key, self._max_records = max_keys, max_per_key, max_records
        # Each key's providers in order of their last renewal.
        self._providers: dict[bytes, dict[PeerId, HeldProvider]] = {}
        self._nearest = NearestKeys(own)
        self._records = 0

    def __len__(self) -> int:
        """Records held, expired ones included until `sweep`."""
        return self._records

    def add(self, key: bytes, provider: Provider, now: float) -> bool:
        """Keep or renew a record. Returns whether it is held now; an outdated one is not, nor one without
        address."""
        if not provider.addresses:
            return False
        provider = _trimmed(provider)
        claim = read_any_claim(provider.record)
        held = self._providers.get(key, {}).get(provider.peer)
        if claim is not None and held is not None and claim.sequence < held.sequence:
            return False  # overtaken on its way
        if claim is not None and claim.withdrawn:
            return self._withdraw(key, provider, claim, held, now)
        expires, sequence = now + self._ttl_s, 0
        if claim is not None and claim.is_valid(now, self._clock_error_s):
            expires, sequence = min(expires, claim.expires + self._clock_error_s), claim.sequence
        elif held is not None and not held.hidden and now <= held.expires:
            # Renewed without a service record, by a plain Provide of the same key: the one held stays.
            provider, sequence = (
                Provider(provider.peer, provider.addresses, held.provider.record),
                held.sequence,
            )
        elif provider.record:
            provider = Provider(provider.peer, provider.addresses)
        return self._keep(HeldProvider(key, provider, expires, sequence, hidden=False))

    def get(self, key: bytes, now: float, limit: int, rng: Random) -> list[Provider]:
        """Providers of a key, oldest renewal first; a random sample when there are more than `limit`."""
        found = self.all_of(key, now)
        return found if len(found) <= limit else rng.sample(found, limit)

    def has(self, key: bytes, peer: PeerId) -> bool:
        """Whether a record of a provider is held, if only a withdrawn one."""
        return peer in self._providers.get(key, ())

    def has_room(self, key: bytes) -> bool:
        """Whether a record of a key would fit though others brought as many again: what is handed over pushes out
        nothing."""
        return (
            2 * len(self._providers.get(key, ())) < self._max_per_key
            and 2 * self._records < self._max_records
            and (key in self._providers or 2 * len(self._providers) < self._max_keys)
        )

    def all_keys(self) -> list[bytes]:
        """The keys of all that is held."""
        return list(self._providers)

    def all_of(self, key: bytes, now: float) -> list[Provider]:
        """All providers of a key."""
        return [
            held.provider
            for held in self._providers.get(key, {}).values()
            if now <= held.expires and not held.hidden
        ]

    def count(self, key: bytes) -> int:
        """Providers held for a key, those that expired since the last sweep included."""
        return len(self._providers.get(key, ()))

    def peers(self, key: bytes) -> list[PeerId]:
        """Whose records are held for a key, hidden and expired ones included."""
        return list(self._providers.get(key, ()))

    def depths(self, key: bytes, name: str) -> list[int]:
        """At which depths the last 16 providers of a shard publish (shards.py), by what their records say,
        unverified. Costs 5 µs for each."""
        last = list(self._providers.get(key, {}).values())[-_LAST:]
        claims = [read_any_claim(held.provider.record) for held in last if not held.hidden]
        return [claim.depths.get(name, 0) if isinstance(claim, RecordClaim) else 0 for claim in claims]

    def sweep(self, now: float) -> None:
        """Drop what has expired. O(n): for once in a while."""
        for key in list(self._providers):
            for peer, held in list(self._providers[key].items()):
                if held.expires < now:
                    self._drop(key, peer)

    def entries(self) -> Iterator[HeldProvider]:
        """All that is held, expired records included until `sweep`; each key's in order of renewal."""
        for providers in self._providers.values():
            yield from providers.values()

    def restore(self, record: HeldProvider, now: float) -> bool:
        """Take back what an earlier store held, in order of renewal. Returns whether it is held now: not when it
        has expired, when a newer one is held, or when there is no room."""
        held = self._providers.get(record.key, {}).get(record.provider.peer)
        if record.expires < now or not record.provider.addresses:
            return False
        if held is not None and (held.sequence, held.expires) >= (record.sequence, record.expires):
            return False
        # A clock that was set back must not make a record live longer than any may.
        expires = min(record.expires, now + self._ttl_s)
        return self._keep(replace(record, expires=expires))

    def _withdraw(
        self, key: bytes, provider: Provider, claim: Claim, held: HeldProvider | None, now: float
    ) -> bool:
        """Hide a record; it is kept, unseen, until it would have expired, so that an older one arriving late
        does not bring it back."""
        if held is None or held.expires < now:
            return False
        return self._keep(HeldProvider(key, provider, held.expires, claim.sequence, hidden=True))

    def _keep(self, record: HeldProvider) -> bool:
        key, peer = record.key, record.provider.peer
        providers = self._providers.get(key)
        if providers is not None and providers.pop(peer, None) is not None:
            providers[peer] = record  # now the last one renewed
            if self.journal is not None:
                self.journal.keep(record)
            return True
        if providers is not None and len(providers) >= self._max_per_key:
            self._drop(key, next(iter(providers)))
        elif providers is None and len(self._providers) >= self._max_keys:
            if self._nearest.is_farther(key):
                return False
            self._drop_key(self._nearest.farthest())
        while self._records >= self._max_records:
            if self._nearest.is_farther(key):
                return False
            farthest = self._nearest.farthest()
            self._drop(farthest, next(iter(self._providers[farthest])))
        providers = self._providers.get(key)
        if providers is None:
            providers = self._providers[key] = {}
            self._nearest.add(key)
        providers[peer] = record
        self._records += 1
        if self.journal is not None:
            self.journal.keep(record)
        return True

    def _drop(self, key: bytes, peer: PeerId) -> None:
        providers = self._providers[key]
        record = providers.pop(peer)
        self._records -= 1
        if self.journal is not None:
            self.journal.drop(record.id)
        if not providers:
            del self._providers[key]
            self._nearest.remove(key)

    def _drop_key(self, key: bytes) -> None:
        for peer in list(self._providers[key]):
            self._drop(key, peer)


def _trimmed(provider: Provider) -> Provider:
    """A provider with as many of its addresses, in their order, as fit into 1 KiB: of 32,768 records with the 4 KiB
    that a message may bring for each, 160 MB would have to be kept."""
    left, kept = _MAX_ADDRESS_BYTES, 0
    for address in provider.addresses:
        left -= len(address)
        if left < 0:
            break
        kept += 1
    if kept == len(provider.addresses):
        return provider
    return Provider(provider.peer, provider.addresses[: max(kept, 1)], provider.record)
