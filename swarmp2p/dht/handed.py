"""Taking in provider records that others than their providers bring (handover.py).

an ADD_PROVIDER names another ---> does that one's signed record come along, for this key, still good, and is none
than its sender                    held of it here? ---> verified, within the sender's allowance ---> stored
"""

from __future__ import annotations

from typing import Final

from ..identity import PeerId
from ..rates import Rates
from ..signed import Verify
from .messages import AddProvider
from .provider_record import belongs, is_genuine, read_any_claim
from .provider_store import ProviderStore

_BURST: Final = 512  # records that one peer may hand over at once
_PER_S: Final = 4.0  # and then each second
_BURST_OF_ALL: Final = 2_048  # the same for all peers together: 0.3 % of a CPU
_PER_S_OF_ALL: Final = 50.0
_BLOCK_S: Final = 600.0  # nothing is taken from who handed over what is not genuine
_MAX_SENDERS: Final = 1_024  # whose allowance is remembered, and who is blocked; the oldest is forgotten


class Handed:
    """Decides about the records that other peers than their providers bring."""

    def __init__(self, providers: ProviderStore, verify: Verify, clock_error_s: float) -> None:
        self._providers, self._verify, self._clock_error_s = providers, verify, clock_error_s
        self._senders = Rates[PeerId](_PER_S, _BURST, _MAX_SENDERS)
        self._all = Rates[None](_PER_S_OF_ALL, _BURST_OF_ALL, 1)
        self._blocked: dict[PeerId, float] = {}  # until when

    def takes(self, sender: PeerId, request: AddProvider, now: float) -> bool:
        """Whether to store what a request says. Looks at what costs least first; a signature is checked only within
        the sender's allowance, and that of all, and who brings a bad one is not listened to for a while."""
        provider = request.provider
        if provider is None or self._providers.has(request.key, provider.peer):
            return False
        if not self._providers.has_room(request.key):
            return False  # for a signature each, one sender could push out what providers brought themselves
        if now < self._blocked.get(sender, 0.0):
            return False
        if not self._senders.admits(sender, now) or not self._all.admits(None, now):
            return False
        claim = read_any_claim(provider.record)
        if claim is None or claim.withdrawn or not claim.is_valid(now, self._clock_error_s):
            return False
        if is_genuine(claim, provider.peer, provider.record, self._verify):
            return belongs(claim, provider.peer, request.key)
        self._blocked.pop(sender, None)
        if len(self._blocked) >= _MAX_SENDERS:
            del self._blocked[next(iter(self._blocked))]
        self._blocked[sender] = now + _BLOCK_S
        return False
