"""The commands that make and join swarms: `swarmp2p join`, `swarmp2p invite`, `swarmp2p network-key`.

What a peer keeps lies beside its key file KEY: KEY.state (storage/), KEY.network (the private swarm's key) and, while
it runs, KEY.addresses, from which `invite` knows where it can be dialled.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from .console import (
    add_peer_options,
    addresses_file,
    emit,
    home,
    network_key_file,
    state_file,
    until_told_to_stop,
)
from .errors import UsageError
from .identity import Identity, verify
from .invite import Invite, grant_capability, invitable, is_invite
from .network_key import NetworkKey
from .private_file import replace_private
from .ray_bridge.grants import Grant

if TYPE_CHECKING:
    from .peer import Peer

_LISTEN: Final = ("/ip4/0.0.0.0/tcp/4141",)
"""All IPv4 interfaces, and always the same port, so that invites stay good when the peer is started again."""

_LOOK_EVERY_S: Final = 1.0
_UNITS: Final = {"m": 60.0, "h": 3_600.0, "d": 86_400.0}


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; add: makes the parser of one."""
    join = add("join", help="join a swarm by an invite, or start one, and stay until told to stop")
    join.add_argument(
        "invite", nargs="?", help="what `swarmp2p invite` printed elsewhere; - reads it from standard input"
    )
    add_peer_options(join, listen=_LISTEN[0], identity=f"{home() / 'key'}")
    join.set_defaults(run=_join)

    invite = add("invite", help="print an invite to this machine's swarm")
    invite.add_argument(
        "--identity", type=Path, help=f"key file of the peer that invites (default {home() / 'key'})"
    )
    invite.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where it can be dialled; repeatable (default: where the peer that runs with this key is)",
    )
    invite.add_argument("--network-key", type=Path, metavar="FILE", help="key of the private swarm")
    invite.add_argument("--expires", default="7d", metavar="TIME", help="30m, 12h, 7d or never (default 7d)")
    invite.add_argument("--capability", default="", metavar="TEXT", help="what you grant to its holder")
    invite.add_argument(
        "--grant", metavar="GRANT", help="a permission to lease that its holder gets, from `swarmp2p grant`"
    )
    invite.add_argument("--json", action="store_true", help="print it as a JSON object")
    invite.set_defaults(run=_invite)

    network_key = add("network-key", help="make the key of a new private swarm")
    network_key.add_argument("file", type=Path, help="where it is written; must not exist")
    network_key.add_argument("--json", action="store_true", help="print it as a JSON object")
    network_key.set_defaults(run=_network_key)


def _network_key(options: argparse.Namespace) -> int:
    key = NetworkKey.generate()
    key.save(options.file)
    if options.json:
        emit(options, "network-key", file=str(options.file), network=_network_name(key))
        return 0
    print(
        f"{options.file}: the key of private swarm {key.name}. Give it to those alone who belong to the swarm"
    )
    return 0


# invite -----------------------------------------------------------------------------------------------------------


def _invite(options: argparse.Namespace) -> int:
    path: Path = options.identity or home() / "key"
    if not os.path.lexists(path):
        raise UsageError(
            f"there is no peer to invite to: {path} does not exist. Start one with: swarmp2p join"
        )
    identity = Identity.load(path)
    lives = _lifetime(options.expires)
    key = network_key_file(options, path)
    addresses = [_full(one, identity) for one in options.address] or _addresses_of(path)
    invite = Invite.issue(
        identity,
        addresses,
        network_key=None if key is None else NetworkKey.load(key),
        capability=_capability(options),
        expires=None if lives is None else time.time() + lives,
    )
    if options.json:
        emit(
            options,
            "invite",
            invite=invite.text,
            secret=invite.secret,
            inviter=str(invite.inviter),
            addresses=[str(address) for address in invite.addresses],
            network=_network_name(invite.network_key),
            expires=invite.expires,
        )
        return 0
    print(invite.text)
    if invite.secret:
        print(
            "Secret: whoever has it is in the swarm. Pass it on over a channel that you trust.",
            file=sys.stderr,
        )
    if invitable(invite.addresses) and all(
        "/ip4/127." in str(one) or "/ip6/::1/" in str(one) for one in addresses
    ):
        print("It names this machine's own addresses only: others cannot use it.", file=sys.stderr)
    return 0


def _capability(options: argparse.Namespace) -> bytes:
    text: str = options.capability
    if options.grant is None:
        return text.encode()
    if text:
        raise UsageError("an invite has a capability or a grant, not both")
    return grant_capability(Grant.parse(options.grant, verify))


def _full(address: str, identity: Identity) -> str:
    return address if "/p2p/" in address else f"{address.rstrip('/')}/p2p/{identity.peer_id}"


def _addresses_of(key: Path) -> list[str]:
    try:
        lines = addresses_file(key).read_text().split()
    except OSError:
        lines = []
    if not lines:
        raise UsageError(
            f"no peer runs with the key {key}, so it is not known where it can be dialled; start it with: swarmp2p "
            "join --identity KEY, or name addresses with --address"
        )
    return [str(one) for one in lines]


def _lifetime(text: str) -> float | None:
    """Seconds; None for ever."""
    if text == "never":
        return None
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if found is None or not int(found[1]):
        raise UsageError(f"{text!r} is no time for which an invite is good: write 30m, 12h, 7d or never")
    return int(found[1]) * _UNITS[found[2]]


# join -------------------------------------------------------------------------------------------------------------


def _join(options: argparse.Namespace) -> int:
    return trio.run(_join_until_stopped, options)


async def _join_until_stopped(options: argparse.Namespace) -> int:
    from .opening import open_peer

    if options.identity is None:
        options.identity = home() / "key"
        options.identity.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path: Path = options.identity
    invite = _given_invite(options)
    key = network_key_file(options, path)
    if invite is not None and invite.network_key is not None and key is not None:
        _check_same_swarm(NetworkKey.load(key), invite.network_key, key)
    async with open_peer(
        identity=path,
        listen=options.listen or _LISTEN,
        bootstrap=[*options.bootstrap, *([] if invite is None else [invite.text])],
        network_key=key,
        state=state_file(options),
        mdns=options.mdns,
        upnp=options.upnp,
    ) as peer:
        if peer.network_key is not None and key is None:
            peer.network_key.save(path.with_name(f"{path.name}.network"))
        with _told_where(peer, path) as tell:
            emit(
                options,
                "joined",
                peer=str(peer.id),
                network=_network_name(peer.network_key),
                addresses=[str(address) for address in peer.addresses],
                connected=len(peer.connected),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_report, options, peer, tell)
                await until_told_to_stop(options.exit_on_eof)
                nursery.cancel_scope.cancel()
    return 0


async def _report(options: argparse.Namespace, peer: Peer, tell: _Told) -> None:
    """Say what has changed, and keep the file of addresses true."""
    told: tuple[object, ...] = ()
    while True:
        now = (len(peer.connected), len(peer.dht.table), peer.reachability)
        if now != told:
            told = now
            emit(options, "peers", connected=now[0], known=now[1], reachability=now[2])
        if tell.changed():
            emit(options, "addresses", addresses=[str(address) for address in peer.addresses])
        await trio.sleep(_LOOK_EVERY_S)


def _given_invite(options: argparse.Namespace) -> Invite | None:
    text: str | None = options.invite
    if text == "-":
        text = sys.stdin.readline().strip()
        if not text:
            raise UsageError("no invite came on standard input; paste what `swarmp2p invite` printed")
    if text is None:
        return None
    if not is_invite(text) and text.startswith("/"):
        raise UsageError("that is an address, not an invite: name it with --bootstrap")
    return Invite.parse(text)


def _check_same_swarm(ours: NetworkKey, theirs: NetworkKey, path: Path) -> None:
    if ours.secret != theirs.secret:
        raise UsageError(
            f"the invite is for the private swarm {theirs.name}, and this peer is in {ours.name}, as {path} says; join "
            "with another --identity, which is another peer. Nothing was changed"
        )


def _network_name(key: NetworkKey | None) -> str:
    return "open" if key is None else f"private:{key.name}"


# Where the peer is, for `invite` ----------------------------------------------------------------------------------


class _Told:
    """The file that says where a running peer can be dialled; it is only a help, and what goes wrong with it is not
    worth ending a peer for."""

    def __init__(self, peer: Peer, path: Path) -> None:
        self._peer, self._path = peer, path
        self._known: tuple[object, ...] = ()

    def changed(self) -> bool:
        """Write it anew when it is not true any more; whether it was, but not for the first time."""
        addresses = self._peer.addresses
        if addresses == self._known:
            return False
        first, self._known = not self._known, addresses
        try:
            lines = "".join(f"{address}\n" for address in invitable(addresses))
            replace_private(self._path, lines.encode(), durable=False)
        except OSError:
            pass
        return not first


@contextmanager
def _told_where(peer: Peer, key: Path) -> Generator[_Told, None, None]:
    told = _Told(peer, addresses_file(key))
    told.changed()
    try:
        yield told
    finally:
        addresses_file(key).unlink(missing_ok=True)
