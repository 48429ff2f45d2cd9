"""The pairings of one member with others: who has to say what next, until both have the same secret.

The initiator repeats its offer until it is answered; the responder answers, the same offer always the same. A pair that
has a secret and needs another (its session was silent too long) begins a new round: the initiator by itself, the
responder by asking for it, repeatedly, until the offer comes.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

from ...errors import BadMessage
from ...rates import Rates
from .config import MeshConfig
from .members import MemberId
from .pairing import (
    Between,
    MeshKeys,
    Statement,
    Step,
    agree,
    digest,
    new_ephemeral,
    read_statement,
    sign_statement,
)


@dataclass(frozen=True, slots=True)
class Say:
    """An envelope for another member."""

    target: MemberId
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Agreed:
    """This side has the secret of a round. The initiator has it last: the responder waits for its first frame."""

    target: MemberId
    secret: bytes
    initiator: bool
    round: int


@dataclass(slots=True)
class _Pair:
    """between: as this side sees it. round: the highest offered, or answered. private: of the offer under way.
    message: what is repeated until it is answered: the offer, or the wish for another round. answer: to the offer with
    `answered` as digest. wanted: since when this round is; inf once it is agreed on. resting: no session is wanted."""

    between: Between
    initiator: bool
    wanted: float
    round: int = 0
    private: bytes = b""
    message: bytes = b""
    made: float = 0.0
    next_send: float = math.inf
    wait_s: float = 0.0
    answer: bytes = b""
    answered: bytes = b""
    resting: bool = False


class Pairs:
    """One member's, at most as many as its cluster has members."""

    def __init__(self, keys: MeshKeys, config: MeshConfig) -> None:
        self._keys, self._config = keys, config
        self._pairs: dict[MemberId, _Pair] = {}
        self._rates: Rates[MemberId] = Rates(config.pairings_per_s, config.pairings_burst, config.max_members)

    def __contains__(self, target: MemberId) -> bool:
        return target in self._pairs

    def deadline(self) -> float:
        return min((pair.next_send for pair in self._pairs.values()), default=math.inf)

    def waiting_since(self, target: MemberId) -> float:
        """When the secret that is not agreed on yet was wanted; inf when there is none to wait for."""
        pair = self._pairs.get(target)
        return math.inf if pair is None else pair.wanted

    def want(self, between: Between, initiator: bool, now: float) -> list[Say | Agreed]:
        """Pair with `between.target`, from now on in this role."""
        known = self._pairs.get(between.target)
        pair = _Pair(between, initiator, now, 0 if known is None else known.round)
        self._pairs[between.target] = pair
        return self._offer(pair, now) if initiator else []

    def rest(self, target: MemberId) -> None:
        """No session is wanted any more. The round is remembered: otherwise, with the next session, an old offer would
        be new again."""
        pair = self._pairs.get(target)
        if pair is not None:
            self._pairs[target] = _Pair(pair.between, True, math.inf, pair.round, resting=True)

    def keep(self, members: Container[MemberId]) -> None:
        """Forget those who are no members any more; their ids never come back."""
        for gone in [target for target in self._pairs if target not in members]:
            del self._pairs[gone]

    def again(self, target: MemberId, now: float) -> list[Say | Agreed]:
        """Have a new secret agreed on; nothing happens while one is being agreed on."""
        pair = self._pairs.get(target)
        if pair is None or pair.resting or pair.wanted < math.inf:
            return []
        pair.wanted = now
        if pair.initiator:
            return self._offer(pair, now)
        return self._first(pair, self._sign(pair, Statement(Step.AGAIN, pair.round), now), now)

    def tick(self, now: float) -> list[Say | Agreed]:
        """Repeat what is not answered."""
        out: list[Say | Agreed] = []
        for pair in [pair for pair in self._pairs.values() if pair.next_send <= now]:
            if now < pair.made + self._config.pairing_life_s / 2:
                pair.wait_s = min(2 * pair.wait_s, self._config.max_retry_s)
                pair.next_send = now + pair.wait_s
                out.append(Say(pair.between.target, pair.message))
            elif pair.initiator:
                out += self._offer(pair, now)
            else:
                out += self._first(pair, self._sign(pair, Statement(Step.AGAIN, pair.round), now), now)
        return out

    def receive(self, source: MemberId, envelope: bytes, now: float) -> list[Say | Agreed]:
        """What another member said; whatever does not fit changes nothing."""
        pair = self._pairs.get(source)
        if pair is None or pair.resting or not self._rates.admits(source, now):
            return []
        if pair.answered and digest(envelope) == pair.answered:
            return [Say(source, pair.answer)]
        late_s = self._config.clock_error_s
        try:
            said = read_statement(envelope, pair.between.reversed, now, late_s, self._keys.verify)
        except BadMessage:
            return []
        match said.step:
            case Step.OFFER if not pair.initiator and said.round > pair.round:
                return self._answer(pair, said, envelope, now)
            case Step.ANSWER if pair.initiator and pair.private and said.offer == digest(pair.message):
                return self._finish(pair, said, envelope)
            case Step.AGAIN if pair.initiator and said.round >= pair.round:
                return self.again(source, now)
            case _:
                return []

    # ----------------------------------------------------------------------------------------------------------

    def _sign(self, pair: _Pair, statement: Statement, now: float) -> bytes:
        return sign_statement(pair.between, statement, now + self._config.pairing_life_s, self._keys.sign)

    def _first(self, pair: _Pair, message: bytes, now: float) -> list[Say | Agreed]:
        """Say something new, to be repeated."""
        pair.message, pair.made, pair.wait_s = message, now, self._config.retry_s
        pair.next_send = now + pair.wait_s
        return [Say(pair.between.target, message)]

    def _offer(self, pair: _Pair, now: float) -> list[Say | Agreed]:
        pair.round = max(pair.round + 1, int(now * 1000))
        pair.private, public = new_ephemeral(self._keys)
        return self._first(pair, self._sign(pair, Statement(Step.OFFER, pair.round, public), now), now)

    def _answer(self, pair: _Pair, said: Statement, offer: bytes, now: float) -> list[Say | Agreed]:
        private, public = new_ephemeral(self._keys)
        answer = self._sign(pair, Statement(Step.ANSWER, said.round, public, digest(offer)), now)
        secret = agree(private, said.key, offer, answer, pair.between.reversed)
        if secret is None:
            return []
        pair.round, pair.answer, pair.answered = said.round, answer, digest(offer)
        self._settle(pair)
        target = pair.between.target
        return [Say(target, answer), Agreed(target, secret, False, said.round)]

    def _finish(self, pair: _Pair, said: Statement, answer: bytes) -> list[Say | Agreed]:
        secret = agree(pair.private, said.key, pair.message, answer, pair.between)
        if secret is None:
            return []
        pair.private = b""
        self._settle(pair)
        return [Agreed(pair.between.target, secret, True, pair.round)]

    def _settle(self, pair: _Pair) -> None:
        pair.wanted, pair.next_send, pair.message = math.inf, math.inf, b""
