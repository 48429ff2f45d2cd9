"""Taking in provider records that others than their providers bring (handover.py).

an ADD_PROVIDER names another ---> does that one's signed record come along, for this key, still good, and is none
than its sender                    held of it here? ---> verified, within the sender's allowance ---> stored
"""

from __future__ import annotations

from typing import Final

from ..identity import PeerId
from ..signed import Verify
from .messages import AddProvider
from .provider_record import belongs, is_genuine, read_any_claim
from .provider_store import ProviderStore

_BURST: Final = 512  # records that one peer may hand over at once
_PER_S: Final = 4.0  # and then each second
_BURST_OF_ALL: Final = 2_048  # the same for all peers together: 0.3 % of a CPU
_PER_S_OF_ALL: Final = 50.0
_BLOCK_S: Final = 600.0  # nothing is taken from who handed over what is not genuine
_MAX_SENDERS: Final = 1_024  # whose allowance is remembered; the one that sent longest ago is forgotten


class _Allowance:
    """Records that somebody may still hand over: so many at once, then so many each second."""

    __slots__ = ("_at", "_burst", "_left", "_per_s", "blocked_until")

    def __init__(self, burst: int, per_s: float, now: float) -> None:
        self._burst, self._per_s, self._left, self._at = burst, per_s, float(burst), now
        self.blocked_until = 0.0

    def take(self, now: float) -> bool:
        """Use one, if there is one."""
        self._left = min(self._left + (now - self._at) * self._per_s, self._burst)
        self._at = now
        if self._left < 1.0 or now < self.blocked_until:
            return False
        self._left -= 1.0
        return True


class Handed:
    """Decides about the records that other peers than their providers bring."""

    def __init__(self, providers: ProviderStore, verify: Verify, clock_error_s: float) -> None:
        self._providers, self._verify, self._clock_error_s = providers, verify, clock_error_s
        self._senders: dict[PeerId, _Allowance] = {}
        self._all: _Allowance | None = None

    def takes(self, sender: PeerId, request: AddProvider, now: float) -> bool:
        """Whether to store what a request says. Looks at what costs least first; a signature is checked only within
        the sender's allowance, and that of all, and who brings a bad one is not listened to for a while."""
        provider = request.provider
        if provider is None or self._providers.has(request.key, provider.peer):
            return False
        if not self._providers.has_room(request.key):
            return False  # for a signature each, one sender could push out what providers brought themselves
        allowance = self._allowance(sender, now)
        if self._all is None:
            self._all = _Allowance(_BURST_OF_ALL, _PER_S_OF_ALL, now)
        if not allowance.take(now) or not self._all.take(now):
            return False
        claim = read_any_claim(provider.record)
        if claim is None or claim.withdrawn or not claim.is_valid(now, self._clock_error_s):
            return False
        if is_genuine(claim, provider.peer, provider.record, self._verify):
            return belongs(claim, provider.peer, request.key)
        allowance.blocked_until = now + _BLOCK_S
        return False

    def _allowance(self, sender: PeerId, now: float) -> _Allowance:
        allowance = self._senders.pop(sender, None)
        if allowance is None:
            allowance = _Allowance(_BURST, _PER_S, now)
            if len(self._senders) >= _MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
        self._senders[sender] = allowance
        return allowance
