"""The commands about who may borrow: `swarmp2p grant`, `swarmp2p grants`, `swarmp2p revoke`.

They use the key KEY and the file KEY.state-grants beside it; a peer may run with them meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from .command_grants import grants_file
from .console import add_peer_options, emit, home, way_in
from .errors import GrantError, UsageError
from .grant_file import GrantFile, grants_path
from .identity import Identity, PeerId, verify
from .ray_bridge.grant_terms import Terms
from .ray_bridge.grants import Grant
from .units import memory_bytes, memory_text, span_s

_LISTEN: Final = "/ip4/0.0.0.0/tcp/0"


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; add: makes the parser of one."""
    grant = add("grant", help="print a permission to lease from all lenders that trust this machine's key")
    grant.add_argument(
        "peer", nargs="?", help="who may use it and pass it on; without it, whoever has it (keep it secret)"
    )
    grant.add_argument("--cpus", type=float, help="most CPUs of one lease")
    grant.add_argument("--gpus", type=float, help="most GPUs of one lease")
    grant.add_argument("--memory", metavar="SIZE", help="most memory of one lease, such as 8G")
    grant.add_argument("--leases", type=int, metavar="N", help="most leases at a time, at each lender")
    grant.add_argument(
        "--lease", metavar="TIME", help="longest lease, such as 2h, however often it is renewed"
    )
    grant.add_argument(
        "--expires", metavar="TIME", help="how long it counts: 30m, 12h, 90d (default 30d, at most 366d)"
    )
    grant.add_argument(
        "--lender", action="append", default=[], metavar="PEER", help="the only lenders it is for; repeatable"
    )
    grant.add_argument("--under", metavar="GRANT", help="pass this grant on, narrowed")
    _add_key_options(grant)
    grant.set_defaults(run=_grant)

    grants = add("grants", help="keep grants that this machine was given, and list those that it holds")
    grants.add_argument("grant", nargs="*", help="what `swarmp2p grant` printed elsewhere")
    _add_key_options(grants)
    grants.set_defaults(run=_grants)

    revoke = add("revoke", help="take grants back: workers that rest on them end within seconds")
    revoke.add_argument("what", nargs="*", metavar="GRANT|PEER", help="grants of this key, or peers")
    revoke.add_argument("--everything", action="store_true", help="all that was granted so far")
    add_peer_options(revoke, listen=_LISTEN, identity=f"{home() / 'key'}")
    revoke.set_defaults(run=_revoke)


def _add_key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--identity", type=Path, help=f"key file (default {home() / 'key'})")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")


def _key(options: argparse.Namespace) -> Path:
    path: Path = options.identity or home() / "key"
    if not os.path.lexists(path):
        raise UsageError(
            f"there is no key {path}: start a peer that makes one, with swarmp2p join, or name one with --identity"
        )
    return path


def _grant(options: argparse.Namespace) -> int:
    owner, now = Identity.load(_key(options)), time.time()
    terms = Terms(
        0.0,
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=None if options.memory is None else memory_bytes(options.memory),
        leases=options.leases,
        lease_s=None if options.lease is None else span_s(options.lease),
        lenders=tuple(sorted(PeerId.from_text(lender) for lender in options.lender)),
    )
    from .granting import make_grant

    to = None if options.peer is None else PeerId.from_text(options.peer)
    lives_s = None if options.expires is None else span_s(options.expires)
    made = make_grant(owner, to, options.under, lives_s, terms, now)
    if options.json:
        emit(options, "grant", **_described(made))
        return 0
    print(made.text)
    if made.is_ticket:
        print("Secret: whoever has it may lease. Pass it on over a channel that you trust.", file=sys.stderr)
    return 0


def _grants(options: argparse.Namespace) -> int:
    key, now = _key(options), time.time()
    identity = Identity.load(key)
    held: list[Grant] = []
    for text in options.grant:
        mine = Grant.parse(text, verify).redeem(identity.peer_id, now)
        if mine.holder != identity.peer_id:
            raise GrantError(f"it was given to {mine.holder}", f"ask for one for {identity.peer_id}")
        if mine.terms.expires <= now:
            raise GrantError("it has expired", "ask for another one")
        held.append(mine)
    for grant in grants_file(key).add(now, held).held:
        emit(options, "grant", **_described(grant))
    return 0


def _described(grant: Grant) -> dict[str, Any]:
    terms = grant.terms
    bounds: dict[str, object] = {
        "cpus": terms.cpus,
        "gpus": terms.gpus,
        "memory": None if terms.memory_bytes is None else memory_text(terms.memory_bytes),
        "leases": terms.leases,
        "lease_s": terms.lease_s,
        "lenders": [str(lender) for lender in terms.lenders] or None,
    }
    return {
        "owner": str(grant.owner),
        "holder": None if grant.is_ticket else str(grant.holder),
        "secret": grant.is_ticket,
        "expires": round(terms.expires),
        **{name: value for name, value in bounds.items() if value is not None},
        "grant": grant.text,
    }


def _revoke(options: argparse.Namespace) -> int:
    return trio.run(_revoke_and_tell, options)


async def _revoke_and_tell(options: argparse.Namespace) -> int:
    from .granting import Granting
    from .opening import open_peer

    key = _key(options)
    owner = Identity.load(key)
    file = grants_file(key) if options.state is None else GrantFile(grants_path(options.state))
    kept = file.read()
    bootstrap, network_key = way_in(options)
    # Another peer may run with the owner's key: who tells the swarm has one of its own.
    async with open_peer(
        listen=options.listen or _LISTEN,
        bootstrap=bootstrap,
        mdns=options.mdns,
        upnp=options.upnp,
        network_key=network_key,
        relay=False,
    ) as peer:
        granting = Granting(peer, lambda command: None, file, kept)
        done = await granting.revoke(options.what, options.everything, owner)
    emit(
        options,
        "revoked",
        owner=str(done.owner),
        sequence=done.sequence,
        told=done.told,
        stored=done.stored,
    )
    if not done.told:
        message = (
            "no lender that follows this key is connected: those that are up learn it from the swarm within two "
            "minutes, others when they come"
        )
        if not done.stored:
            message = (
                f"nobody was told, since no swarm was reached: only lenders that use {file.path} know it. Run it "
                "again with --bootstrap"
            )
        emit(options, "problem", message=message)
    return 0
