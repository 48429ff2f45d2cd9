"""What other peers see us at: the address that a NAT gives us, told in identify's observedAddr.

Anybody may say anything, so only those count whom this peer dialled itself, one voice for each subnet, and only on
connections that left from a port we listen on: the NAT's port for those is where we might be dialled.

    the 8 subnets heard of last, for each listening port
        3 of them say the same address                              an address of ours (go-libp2p wants 4 observers)
        one that also dialled us there (AutoNAT) counts twice       so two suffice
        3 or more, and no two of them say the same                  the NAT gives each destination another port: nothing
                                                                    that is seen is of use to anybody else
        what they say is an address of this machine                 no NAT in between

An observation is forgotten after half an hour, and asked for again after half of that. What one peer alone says is a
candidate: good enough to be dialled by somebody whom we ask to try it (AutoNAT, hole punching), and told to nobody
else. No I/O here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ..engine import Address
from .addresses import host_and_port, parse_transport
from .reachability import Scope, scope_of
from .sources import subnet_of

_VOICES: Final = 3
_PLACES: Final = 8  # for each port; so at most two addresses have enough voices
_LIFE_S: Final = 1800.0
_FRESH_S: Final = _LIFE_S / 2
_MAX_CANDIDATES: Final = 4

Mapping = Literal["unknown", "none", "same", "varies"]
"""What is between this peer and those it dials: nobody knows yet; no NAT; a NAT that gives a port of ours the same
address whomever it talks to; one that gives it another address for each destination ("symmetric")."""


@dataclass(frozen=True, slots=True)
class _Observation:
    seen: Address
    at: float
    reached: bool  # it has dialled us there


class Observed:
    """What others see one peer at. listening: where it listens, with the addresses of all interfaces."""

    def __init__(self, listening: Iterable[Address]) -> None:
        targets = [(one, target) for one in listening if (target := parse_transport(one)) is not None]
        self._own = {one for one, _ in targets}
        self._heard: dict[tuple[bool, int], OrderedDict[str, _Observation]] = {
            _line(*host_and_port(target)): OrderedDict() for _, target in targets
        }

    def wants(self, observer: str, local: tuple[str, int], now: float) -> bool:
        """Whether a peer at this IP address, dialled from `local`, is worth asking what it sees."""
        line = self._heard.get(_line(*local))
        if line is None or scope_of(observer) <= Scope.MACHINE:
            return False
        before = line.get(_place(observer))
        return before is None or now - before.at >= _FRESH_S

    def saw(self, observer: str, local: tuple[str, int], seen: Address, now: float) -> None:
        """A peer at this IP address, whom we dialled from `local`, sees us at `seen`."""
        target = parse_transport(seen)
        line = self._heard.get(_line(*local))
        if target is None or line is None:
            return
        host = host_and_port(target)[0]
        if scope_of(observer) is not scope_of(host) or scope_of(host) <= Scope.MACHINE:
            return  # what somebody in the same private network sees is not what the internet does
        if (":" in host) != (":" in local[0]):
            return
        place, seen = _place(observer), target.to_bytes()
        before = line.pop(place, None)
        line[place] = _Observation(seen, now, before is not None and before.seen == seen and before.reached)
        if len(line) > _PLACES:
            line.popitem(last=False)

    def reached(self, observer: str, seen: Address) -> None:
        """A peer says that it could dial us there, where it sees us."""
        for line in self._heard.values():
            place = _place(observer)
            before = line.get(place)
            if before is not None and before.seen == seen:
                line[place] = _Observation(seen, before.at, reached=True)

    def addresses(self, now: float) -> tuple[Address, ...]:
        """What enough of them agree on, without those that this machine has itself."""
        return tuple(
            one
            for votes in self._votes(now)
            for one, number in votes.most_common()
            if number >= _VOICES and one not in self._own
        )

    def candidates(self, now: float) -> tuple[Address, ...]:
        """What any of them sees, what most of them see first; at most 4."""
        together = Counter[Address]()
        for votes in self._votes(now):
            together.update(votes)
        return tuple(one for one, _ in together.most_common() if one not in self._own)[:_MAX_CANDIDATES]

    def mapping(self, now: float) -> Mapping:
        """What is between this peer and the others. One liar does not change it."""
        for line in self._heard.values():
            fresh = [one.seen for one in line.values() if now - one.at < _LIFE_S]
            if len(fresh) >= _VOICES:
                seen, number = Counter(fresh).most_common(1)[0]
                if number >= _VOICES or number > len(fresh) // 2:
                    return "none" if seen in self._own else "same"
                if number == 1:
                    return "varies"
        return "unknown"

    def expires_at(self, now: float) -> float | None:
        """When what is known may next become less."""
        return min(
            (
                one.at + _LIFE_S
                for line in self._heard.values()
                for one in line.values()
                if one.at + _LIFE_S > now
            ),
            default=None,
        )

    def _votes(self, now: float) -> list[Counter[Address]]:
        """By listening port: how many say each address."""
        found: list[Counter[Address]] = []
        for line in self._heard.values():
            votes = Counter[Address]()
            for one in line.values():
                if now - one.at < _LIFE_S:
                    votes[one.seen] += 2 if one.reached else 1
            found.append(votes)
        return found


def _line(host: str, port: int) -> tuple[bool, int]:
    """What a mapping belongs to: IPv6 or not, and the port."""
    return ":" in host, port


def _place(observer: str) -> str:
    """Whose voice it is: of the internet's addresses a whole subnet has one."""
    return subnet_of(observer) if scope_of(observer) is Scope.GLOBAL else observer
