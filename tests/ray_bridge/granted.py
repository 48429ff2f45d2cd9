"""A lender that lends by grants alone, its owner, and peers with real keys that ask it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from swarmp2p.engine import NetworkOutput, Received, Send
from swarmp2p.identity import Identity, PeerId
from swarmp2p.ray_bridge.auth import make_proof
from swarmp2p.ray_bridge.events import LeaseOutput, Lend, Need, Offer, PathUp, WorkerStarted
from swarmp2p.ray_bridge.grant_terms import Terms
from swarmp2p.ray_bridge.grants import Grant
from swarmp2p.ray_bridge.lease import LeaseConfig, Leases
from swarmp2p.ray_bridge.messages import FORM, Challenge, LeaseMessage, LeaseRequest, Proof, Refuse
from swarmp2p.ray_bridge.wire import encode, read_message

from .keys import SECRET, VERSIONS, lease_id, real_identity, real_keys

OWNER, ALICE, BOB, MALLORY = (real_identity(number) for number in (1, 2, 3, 4))
LENDER, OTHER_LENDER = real_identity(5), real_identity(6)
NOW = 1_000_000.0
TERMS = Terms(expires=NOW + 3600, cpus=2)
CONFIG = LeaseConfig(lease_s=60.0)
Outputs = Sequence[NetworkOutput | LeaseOutput]


def grant(
    to: Identity = ALICE, terms: Terms = TERMS, by: Identity = OWNER, issued: float = NOW - 10
) -> Grant:
    return Grant.issue(by, to.peer_id, terms, issued)


def lender(max_leases: int = 8, config: LeaseConfig = CONFIG) -> Leases:
    """Lends to nobody by name, and by grants of OWNER."""
    engine = Leases(LENDER.peer_id, real_keys(LENDER), Random(1), config)
    offer = Offer(cpus=64, max_leases=max_leases)
    engine.handle(Lend(offer, VERSIONS, frozenset(), frozenset({OWNER.peer_id})), NOW)
    return engine


def request(number: int, chain: Grant | tuple[bytes, ...], need: Need = Need(cpus=1)) -> LeaseRequest:  # noqa: B008
    links = chain.envelopes if isinstance(chain, Grant) else chain
    return LeaseRequest(lease_id(number), need, VERSIONS, "c", grants=links, form=FORM)


def answers(outputs: Outputs) -> list[LeaseMessage]:
    return [
        output.message
        for output in outputs
        if isinstance(output, Send) and isinstance(output.message, LeaseMessage)
    ]


def send(engine: Leases, sender: PeerId, message: LeaseMessage, now: float = NOW) -> Outputs:
    """Over the wire and in."""
    return engine.handle(Received(sender, read_message(encode(message))), now)


def refusal(engine: Leases, who: Identity, asked: LeaseRequest, now: float = NOW) -> str:
    (answer,) = answers(send(engine, who.peer_id, asked, now))
    assert isinstance(answer, Refuse), answer
    return answer.reason


def prove(who: Identity, asked: LeaseRequest, nonce: bytes, now: float = NOW) -> Proof:
    envelope = make_proof(real_keys(who), asked, nonce, LENDER.peer_id, who.peer_id, SECRET, now + 5)
    return Proof(asked.lease, envelope)


def lease(engine: Leases, who: Identity, asked: LeaseRequest, now: float = NOW) -> Outputs:
    """The whole handshake, until the worker runs; what the last steps put out."""
    (challenge,) = answers(send(engine, who.peer_id, asked, now))
    assert isinstance(challenge, Challenge), challenge
    out = list(send(engine, who.peer_id, prove(who, asked, challenge.nonce, now), now))
    out += engine.handle(PathUp(asked.lease), now)
    out += engine.handle(WorkerStarted(asked.lease), now)
    return out
