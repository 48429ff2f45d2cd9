"""A hundred thousand forged, expired, widened, replayed and wrongly addressed requests and grants: no worker starts.

All keys and signatures are real, and every request goes over the wire format into the real engine. Those who ask are
many, and take their time, so that it is not the limit on checks that saves the lender.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import msgpack

from swarmp2p.engine import Received, Tick
from swarmp2p.identity import Identity, PeerId, verify
from swarmp2p.ray_bridge.auth import LeaseKeys, make_proof
from swarmp2p.ray_bridge.events import (
    LearnRevocations,
    LeaseGranted,
    Lend,
    Need,
    Offer,
    OpenPath,
    PathUp,
    StartWorker,
)
from swarmp2p.ray_bridge.grants import Grant
from swarmp2p.ray_bridge.lease import GivenState, Leases
from swarmp2p.ray_bridge.messages import Challenge, LeaseMessage, LeaseRequest, Proof
from swarmp2p.ray_bridge.revocations import revoke
from swarmp2p.signed import pack, sign_map

from .granted import (
    ALICE,
    BOB,
    CONFIG,
    LENDER,
    MALLORY,
    NOW,
    OTHER_LENDER,
    OWNER,
    TERMS,
    answers,
    grant,
    lease,
    prove,
    request,
    send,
)
from .keys import SECRET, VERSIONS, lease_id, real_identity, real_keys

TRIES = 100_000
CROWD = [real_identity(number) for number in range(60, 160)]
Attack = Callable[[], tuple[PeerId, LeaseMessage]]


def signed(fields: dict[str, object], by: Identity) -> bytes:
    return sign_map("lease-grant-link", fields, by.sign)


def fields_of(envelope: bytes) -> dict[str, object]:
    found: dict[str, object] = msgpack.unpackb(msgpack.unpackb(envelope)[0])
    return found


class Attacker:
    """Makes attacks of each kind, out of genuine grants that it has seen, its own keys, and its wits."""

    def __init__(self, engine: Leases, rng: Random) -> None:
        self.engine, self.rng, self.number = engine, rng, 0
        self.now = NOW
        self.proofs: list[tuple[PeerId, Proof]] = []
        # genuine chains: to each of the crowd by name, two steps long
        self.chains = {
            who.peer_id: grant().narrow(ALICE, who.peer_id, TERMS.within(cpus=1, gpus=0), NOW - 5)
            for who in CROWD
        }
        self.wide = [self.widened() for _ in range(200)]
        self.self_made = [self.of_its_own() for _ in range(200)]
        self.expired = [grant(who, replace(TERMS, expires=NOW - 1)) for who in CROWD]
        self.elsewhere = [grant(who, replace(TERMS, lenders=(OTHER_LENDER.peer_id,))) for who in CROWD]
        self.revoked = [grant(MALLORY).narrow(MALLORY, who.peer_id, TERMS, NOW) for who in CROWD]
        self.kinds: dict[str, Attack] = {
            "a byte changed": self.changed,
            "a link left out, doubled or moved": self.shuffled,
            "signed by the wrong key": lambda: self.ask(*self.rng.choice(self.self_made)),
            "widened by a genuine holder": lambda: self.ask(*self.rng.choice(self.wide)),
            "expired": lambda: self.ask_as_holder(self.rng.choice(self.expired)),
            "for other lenders": lambda: self.ask_as_holder(self.rng.choice(self.elsewhere)),
            "revoked": lambda: self.ask_as_holder(self.rng.choice(self.revoked)),
            "somebody else's": self.stolen,
            "for more than was granted": self.greedy,
            "a proof replayed": self.replayed,
            "a proof made by another": self.proof_of_another,
            "a proof for another lender, or too late": self.misdirected,
        }

    def who(self) -> Identity:
        return self.rng.choice(CROWD)

    def next(self) -> int:
        self.number += 1
        return self.number

    def ask(
        self, who: PeerId, chain: tuple[bytes, ...], need: Need | None = None
    ) -> tuple[PeerId, LeaseMessage]:
        return who, request(self.next(), chain, need or Need(cpus=1))

    def ask_as_holder(self, one: Grant) -> tuple[PeerId, LeaseMessage]:
        return self.ask(one.holder, one.envelopes)

    # Grants -------------------------------------------------------------------------------------------------

    def changed(self) -> tuple[PeerId, LeaseMessage]:
        who, chain = self.rng.choice(list(self.chains.items()))
        links, at = list(chain.envelopes), self.rng.randrange(2)
        link = bytearray(links[at])
        link[self.rng.randrange(len(link))] ^= self.rng.randrange(1, 256)
        links[at] = bytes(link)
        return self.ask(who, tuple(links))

    def shuffled(self) -> tuple[PeerId, LeaseMessage]:
        who, chain = self.rng.choice(list(self.chains.items()))
        first, second = chain.envelopes
        other = self.rng.choice(list(self.chains.values())).envelopes[1]
        shapes = [
            (second,),
            (second, first),
            (first, first),
            (first, second, second),
            (second, second),
            (first,),
        ]
        if other != second:
            shapes.append((first, other))
        return self.ask(who, self.rng.choice(shapes))

    def of_its_own(self) -> tuple[PeerId, tuple[bytes, ...]]:
        """Every field as the owner would write it, or the holder, under another key."""
        who = self.who()
        first, second = self.chains[who.peer_id].envelopes
        forger = self.rng.choice([MALLORY, BOB, who])
        if self.rng.random() < 0.5:
            made = fields_of(first) | {"to": who.peer_id.public_key, "cpus": float(self.rng.randrange(64))}
            return who.peer_id, (signed(made, forger),)
        return who.peer_id, (first, signed(fields_of(second) | {"cpus": 0.5 + self.rng.random()}, forger))

    def widened(self) -> tuple[PeerId, tuple[bytes, ...]]:
        """Alice holds a genuine grant, and signs more than it gives with her genuine key."""
        who, rng = self.who(), self.rng
        first, second = self.chains[who.peer_id].envelopes
        fields = fields_of(second)
        match rng.randrange(4):
            case 0:
                fields["cpus"] = 2.0 + rng.random() * 60
            case 1:
                del fields["cpus"]
            case 2:
                fields["end"] = TERMS.expires + rng.randrange(1, 10_000)
            case _:
                fields |= {"cpus": 64.0, "end": TERMS.expires + 1}
        return who.peer_id, (first, signed(fields, ALICE))

    def stolen(self) -> tuple[PeerId, LeaseMessage]:
        one, other = self.rng.sample(CROWD, 2)
        return self.ask(one.peer_id, self.chains[other.peer_id].envelopes)

    def greedy(self) -> tuple[PeerId, LeaseMessage]:
        who, chain = self.rng.choice(list(self.chains.items()))
        need = self.rng.choice([Need(cpus=1.01 + self.rng.random() * 63), Need(cpus=1, gpus=1)])
        return self.ask(who, chain.envelopes, need)

    # Proofs for genuine grants, of somebody who is not who it says -------------------------------------------

    def challenged(self) -> tuple[Identity, LeaseRequest, bytes]:
        """A genuine request, whose challenge somebody else answers."""
        who = self.who()
        asked = request(self.next(), self.chains[who.peer_id])
        (challenge,) = answers(send(self.engine, who.peer_id, asked, self.now))
        assert isinstance(challenge, Challenge), challenge
        return who, asked, challenge.nonce

    def replayed(self) -> tuple[PeerId, LeaseMessage]:
        """An old proof of the same borrower, for a new challenge."""
        who, asked, _ = self.challenged()
        old = make_proof(real_keys(who), asked, b"o" * 32, LENDER.peer_id, who.peer_id, SECRET, self.now + 5)
        return who.peer_id, Proof(asked.lease, old)

    def proof_of_another(self) -> tuple[PeerId, LeaseMessage]:
        who, asked, nonce = self.challenged()
        keys: LeaseKeys = real_keys(MALLORY)
        claimed = self.rng.choice([who.peer_id, MALLORY.peer_id])
        made = make_proof(keys, asked, nonce, LENDER.peer_id, claimed, SECRET, self.now + 5)
        return who.peer_id, Proof(asked.lease, made)

    def misdirected(self) -> tuple[PeerId, LeaseMessage]:
        who, asked, nonce = self.challenged()
        keys = real_keys(who)
        match self.rng.randrange(3):
            case 0:  # what another lender got, passed on
                made = make_proof(keys, asked, nonce, OTHER_LENDER.peer_id, who.peer_id, SECRET, self.now + 5)
            case 1:
                made = make_proof(keys, asked, nonce, LENDER.peer_id, who.peer_id, SECRET, self.now - 31)
            case _:  # of the same request with another grant in it
                asked_for = replace(asked, grants=asked.grants[:1])
                made = make_proof(keys, asked_for, nonce, LENDER.peer_id, who.peer_id, SECRET, self.now + 5)
        return who.peer_id, Proof(asked.lease, made)


def test_no_worker_starts() -> None:
    checked = Counter[str]()

    def counting(signer: PeerId, data: bytes, signature: bytes) -> bool:
        checked["signatures"] += 1
        return verify(signer, data, signature)

    engine = Leases(LENDER.peer_id, replace(real_keys(LENDER), verify=counting), Random(1), CONFIG)
    offer = Offer(cpus=64, gpus=8, max_leases=64)
    engine.handle(Lend(offer, VERSIONS, frozenset(), frozenset({OWNER.peer_id})), NOW)
    told = revoke(OWNER, None, NOW, peers=[MALLORY.peer_id])
    engine.handle(LearnRevocations(told.owner, told.envelope), NOW)
    rng = Random(20)
    attacker = Attacker(engine, rng)
    names = list(attacker.kinds)
    # proofs cost ten times what the rest does, on both sides: one try in ten
    weights = [1.0 if "proof" in name else 3.0 for name in names]
    for name in rng.choices(names, weights, k=TRIES):
        attacker.now += 0.01
        sender, message = attacker.kinds[name]()
        outputs = engine.handle(Received(sender, message), attacker.now)
        # nothing is even set aside for them
        assert not [one for one in answers(outputs) if isinstance(one, Challenge)], name
        outputs = [*outputs, *engine.handle(PathUp(message.lease), attacker.now)]
        started = [out for out in outputs if isinstance(out, LeaseGranted | OpenPath | StartWorker)]
        assert not started, (name, started)
        if attacker.number % 50 == 0:
            assert set(engine.states().values()) <= {GivenState.CHALLENGED}
            engine.handle(Tick(), attacker.now)
        checked[name] += 1
    assert set(engine.states().values()) <= {GivenState.CHALLENGED}
    assert all(checked[name] > TRIES / 50 for name in names), checked
    assert checked["signatures"] > TRIES / 10, "it was not the limits that refused them"
    # and after all that, whoever may lease, can
    holder = CROWD[0]
    asked = request(attacker.next(), attacker.chains[holder.peer_id])
    out = lease(engine, holder, asked, attacker.now + 10)
    assert [one.borrower for one in out if isinstance(one, StartWorker)] == [holder.peer_id]


def test_what_was_overheard_starts_nothing_again() -> None:
    """Every message of a genuine lease, said again by its borrower's connection and by others, while it stands and
    after it."""
    engine = Leases(LENDER.peer_id, real_keys(LENDER), Random(1), CONFIG)
    engine.handle(Lend(Offer(cpus=64, max_leases=9), VERSIONS, frozenset(), frozenset({OWNER.peer_id})), NOW)
    asked = request(1, grant())
    (challenge,) = answers(send(engine, ALICE.peer_id, asked))
    assert isinstance(challenge, Challenge)
    proof = prove(ALICE, asked, challenge.nonce)
    first = [*send(engine, ALICE.peer_id, proof), *engine.handle(PathUp(lease_id(1)), NOW)]
    assert sum(isinstance(one, StartWorker) for one in first) == 1

    def all_again() -> None:
        for sender in (ALICE.peer_id, BOB.peer_id, MALLORY.peer_id):
            for message in (
                asked,
                proof,
                replace(asked, lease=lease_id(2)),
                Proof(lease_id(2), proof.envelope),
            ):
                out = [*send(engine, sender, message), *engine.handle(PathUp(message.lease), NOW)]
                assert not [one for one in out if isinstance(one, LeaseGranted | StartWorker)]

    all_again()
    engine.handle(Tick(), NOW + 61)  # over
    assert not [state for state in engine.states().values() if state is not GivenState.CHALLENGED]
    all_again()


def test_links_packed_otherwise_are_the_same_link() -> None:
    """Around a genuine signature bytes can be packed in other ways; none of them makes another grant of it."""
    one = grant()
    payload, signature = msgpack.unpackb(one.envelopes[0])
    longer = b"\x92" + b"\xc5" + len(payload).to_bytes(2, "big") + payload + b"\xc4\x40" + signature
    engine = Leases(LENDER.peer_id, real_keys(LENDER), Random(1), CONFIG)
    engine.handle(Lend(Offer(cpus=64, max_leases=9), VERSIONS, frozenset(), frozenset({OWNER.peer_id})), NOW)
    assert longer != pack([payload, signature])
    told = revoke(OWNER, None, NOW, grants=[one.id])
    engine.handle(LearnRevocations(told.owner, told.envelope), NOW)
    for link in (one.envelopes[0], longer):
        (answer,) = answers(send(engine, ALICE.peer_id, request(1, (link,))))
        assert "revoked" in str(answer)
