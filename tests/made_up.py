"""Made-up values by type: messages as a hostile peer might send them, from a seeded random source."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from random import Random
from typing import Any, Union, get_args, get_origin, get_type_hints

from swarmp2p.identity import PeerId
from swarmp2p.transport.sim_peers import sim_address, sim_peer

PEERS = tuple(sim_peer(index) for index in range(8))
"""Who takes part in made-up worlds; messages name them more often than others."""

Make = Callable[["Maker"], Any]
Special = dict[type | str, Make]

_INTEGERS = (0, 1, 2, 3, 7, 20, 1000, 2**31, 2**53, 2**63)
_FLOATS = (0.0, 0.5, 1.0, 60.0, 1e6, 1.8e9, 1e18)
_LENGTHS = (0, 1, 8, 16, 32, 34, 38, 64, 600)
_COUNTS = (0, 0, 1, 1, 2, 3, 40)


class Maker:
    """Makes values of any type that messages and commands are made of.

    special: by type, or by field name, how to make values that have to mean something: a key out of a few,
    so that messages meet; an envelope with a sound signature. now: for times that have to mean something.
    recent: what the engine told its application lately, oldest first.
    """

    def __init__(self, rng: Random, special: Mapping[type | str, Make], now: float) -> None:
        self.rng, self._special, self.now = rng, special, now
        self.recent: Sequence[Any] = ()

    def make(self, kind: Any, name: str = "") -> Any:
        """A value of a type, for a field called `name`."""
        special = self._special.get(name) or (self._special.get(kind) if isinstance(kind, type) else None)
        if special is not None:
            return special(self)
        if isinstance(kind, type) and is_dataclass(kind):
            return kind(**{field: self.make(hint, field) for field, hint in _hints(kind).items()})
        return self._plain(kind, name)

    def _plain(self, kind: Any, name: str) -> Any:
        rng = self.rng
        if kind is PeerId:
            return self.peer()
        if kind is bytes:
            return sim_address(rng.randrange(1, 50)) if name == "addresses" else self.data()
        if kind is str:
            return "".join(rng.choices("ab\u00e9\u2603 \0", k=rng.choice((0, 1, 5, 20))))
        if kind is int:
            return rng.choice(_INTEGERS)
        if kind is float:
            return rng.choice(_FLOATS) * rng.random()
        if kind is bool:
            return rng.random() < 0.5
        if kind is type(None):
            return None
        return self._compound(get_origin(kind), get_args(kind), name)

    def _compound(self, origin: Any, args: tuple[Any, ...], name: str) -> Any:
        rng = self.rng
        if origin in (Union, types.UnionType):
            return self.make(rng.choice(args), name)
        if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            return tuple(self.make(args[0], name) for _ in range(rng.choice(_COUNTS)))
        if origin is tuple:
            return tuple(self.make(each) for each in args)
        raise NotImplementedError(f"no way to make up a {origin}[{args}] for {name}; put it into `special`")

    def peer(self) -> PeerId:
        """Mostly one of PEERS, sometimes anybody, sometimes one whose id only hashes its key."""
        rng = self.rng
        if rng.random() < 0.7:
            return rng.choice(PEERS)
        return (
            sim_peer(rng.randrange(1000)) if rng.random() < 0.8 else PeerId(b"\x12\x20" + rng.randbytes(32))
        )

    def data(self) -> bytes:
        return self.rng.randbytes(self.rng.choice(_LENGTHS))


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}
