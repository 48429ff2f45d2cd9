"""Which form of the lease messages a lender understands, and requests in the first one.

Peers of before the second form (messages.py) refuse a field that they do not know, and say by the protocol that they
serve that they do not. What they cannot do is refused here, with what to do about it; waiting in a queue is left out.
"""

from __future__ import annotations

from ..identity import PeerId
from .lease_config import LeaseConfig
from .messages import LeaseRequest


class Forms:
    """Connected peers that understand only the first form; beyond `max_strangers` the oldest is forgotten, which costs
    it one message that it cannot read."""

    def __init__(self, config: LeaseConfig) -> None:
        self._config = config
        self._first: dict[PeerId, None] = {}

    def learn(self, peer: PeerId, first_only: bool) -> None:
        """What a peer says it serves."""
        self._first.pop(peer, None)
        if first_only:
            self._first[peer] = None
            if len(self._first) > self._config.max_strangers:
                del self._first[next(iter(self._first))]

    def first_only(self, peer: PeerId) -> bool:
        """Whether it is known to understand no more than the first form."""
        return peer in self._first


def in_first_form(request: LeaseRequest) -> LeaseRequest:
    """The request without what only the second form has."""
    return LeaseRequest(request.lease, request.need, request.versions, request.cluster, form=1)


def too_new(request: LeaseRequest) -> str | None:
    """Why a request cannot do without the second form; None when it can."""
    wanted = (("gangs", request.gang), ("grants", request.grants), ("labels", request.need.labels))
    names = [name for name, given in wanted if given]
    if not names:
        return None
    return f"this lender's swarmp2p is older and knows no {' or '.join(names)}; it needs: pip install -U swarmp2p"
