"""A lender and a borrower side by side, for tests by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from swarmp2p.engine import NetworkEvent, NetworkOutput, Received, Send, Tick
from swarmp2p.identity import PeerId
from swarmp2p.ray_bridge.events import (
    Journal,
    LeaseCommand,
    LeaseOutput,
    Lend,
    Need,
    Offer,
    PathUp,
    RequestLease,
    WorkerStarted,
)
from swarmp2p.ray_bridge.lease import GivenState, LeaseConfig, Leases, TakenState
from swarmp2p.ray_bridge.messages import (
    LeaseMessage,
)

from .keys import SECRET, VERSIONS, cheap_keys, lease_id, peer

LENDER, BORROWER = peer(1), peer(2)
LEASE = lease_id(1)
CONFIG = LeaseConfig(lease_s=60.0)
Outputs = Sequence[NetworkOutput | LeaseOutput]


def ask(number: int = 1, lender: PeerId = LENDER) -> RequestLease:
    return RequestLease(lease_id(number), lender, Need(), VERSIONS, SECRET, "test-cluster")


def lender(offer: Offer | None = None, config: LeaseConfig = CONFIG) -> Leases:
    engine = Leases(LENDER, cheap_keys(LENDER), Random(1), config)
    engine.handle(Lend(offer or Offer(), VERSIONS, None), 0.0)
    return engine


def borrower(config: LeaseConfig = CONFIG) -> Leases:
    return Leases(BORROWER, cheap_keys(BORROWER), Random(2), config)


def sent(outputs: Outputs) -> list[LeaseMessage]:
    return [
        output.message
        for output in outputs
        if isinstance(output, Send) and isinstance(output.message, LeaseMessage)
    ]


def told(outputs: Outputs) -> list[LeaseOutput]:
    """Without the journal."""
    return [output for output in outputs if not isinstance(output, NetworkOutput | Journal)]


class Two:
    """A lender and a borrower whose messages arrive at once. `cut` drops them instead."""

    def __init__(self, config: LeaseConfig = CONFIG, offer: Offer | None = None) -> None:
        self.engines = {LENDER: lender(offer, config), BORROWER: borrower(config)}
        self.now = 0.0
        self.cut = False
        self.log: dict[PeerId, list[LeaseOutput]] = {LENDER: [], BORROWER: []}

    def feed(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> None:
        outputs = self.handle(one, event)
        self.log[one] += told(outputs)
        for output in outputs:
            if isinstance(output, Send) and not self.cut:
                self.feed(output.to, Received(one, output.message))

    def handle(self, one: PeerId, event: NetworkEvent | LeaseCommand) -> Outputs:
        """Have one side take an event."""
        return self.engines[one].handle(event, self.now)

    def run(self, until: float) -> None:
        while True:
            one = min(self.engines, key=lambda who: self.engines[who].deadline())
            if self.engines[one].deadline() > until:
                break
            self.now = max(self.now, self.engines[one].deadline())
            self.feed(one, Tick())
        self.now = until

    def activate(self) -> Two:
        self.feed(BORROWER, ask())
        self.feed(LENDER, PathUp(LEASE))
        self.feed(LENDER, WorkerStarted(LEASE))
        assert self.states() == [GivenState.ACTIVE, TakenState.ACTIVE]
        return self

    def states(self) -> list[GivenState | TakenState]:
        return [state for engine in self.engines.values() for state in engine.states().values()]
