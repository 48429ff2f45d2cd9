"""Opening a peer: everything that it consists of, put together and taken down again."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import trio
from multiaddr.multiaddr import Multiaddr

from .arguments import addresses_argument, protocol_argument
from .dht.events import SaveState
from .dht.wire import dht_protocol as _dht_protocol
from .dht.wire import record_protocol
from .driver import Driver, Overloaded
from .errors import GrantError, UsageError
from .gossip.codec import pubsub_protocol
from .gossip.load import loads_protocol
from .grant_file import GrantFile, Kept, grants_path
from .identity import Identity, verify
from .invite import Invite, entrance
from .joining import Targets
from .network_key import NetworkKey
from .node import NodeCommand, NodeConfig, NodeEngine, NodeOutput
from .peer import Membership, Peer
from .ray_bridge.auth import LeaseKeys
from .ray_bridge.grants import Grant
from .ray_bridge.revocations import NAMESPACE, RevocationRules
from .ray_bridge.wire import lease_protocol
from .storage.journal import open_journal
from .storage.storage import open_storage
from .transport.addresses import listen_address, split_address
from .transport.mesh.wire import mesh_protocol
from .transport.network import PeerNetwork
from .transport.relay_config import RelayConfig
from .validation import guarded
from .wire import WireProtocol

_log = logging.getLogger(__name__)

DEFAULT_LISTEN: Final = ("/ip4/127.0.0.1/tcp/0",)
DEFAULT_DHT_PROTOCOL: Final = "/swarm/kad/1.0.0"


def _libp2p_host(
    identity: Identity,
    listen: Sequence[Multiaddr],
    protocols: Sequence[WireProtocol],
    config: NodeConfig,
    network_key: NetworkKey | None,
    relay: RelayConfig,
    upnp: bool,
) -> PeerNetwork:
    from .transport.host import Host, HostConfig  # py-libp2p costs half a second to import

    host_config = HostConfig(ask_records=config.gossip.peer_exchange, relay=relay, upnp=upnp)
    return Host(identity, listen, protocols, host_config, network_key)


@asynccontextmanager
async def open_peer(
    *,
    identity: Identity | str | os.PathLike[str] | None = None,
    listen: Iterable[Multiaddr | str] | Multiaddr | str | None = DEFAULT_LISTEN,
    bootstrap: Iterable[Multiaddr | str] | Multiaddr | str | Invite | None = (),
    network_key: NetworkKey | bytes | str | os.PathLike[str] | None = None,
    network: PeerNetwork | None = None,
    dht_protocol: str = DEFAULT_DHT_PROTOCOL,
    config: NodeConfig | None = None,
    state: str | os.PathLike[str] | None = None,
    mdns: bool = False,
    relay: bool = True,
    relayed: bool = True,
    upnp: bool = False,
) -> AsyncGenerator[Peer, None]:
    """Run a peer while the context is open.

    identity: an Identity, or the path of its file (made when missing); a fresh one that is kept nowhere by
        default. listen: multiaddrs, one or many; /tcp/0 lets the system choose the port, none at all makes a
        peer that only dials. bootstrap: addresses of peers of the swarm to join, one or many, ending in
        /p2p/<id>, or an invite; empty starts a new swarm. network_key: of a private swarm, whose peers talk to nobody
        else: its 32 bytes, its file as go-libp2p writes them, or the contents of that; an invite to a private swarm
        brings it. network: another transport than libp2p (embedders, tests). dht_protocol:
        "/ipfs/kad/1.0.0" would join that network. config: settings, such as NodeConfig(dht=DhtConfig(server=False)).
        state: a file, made when missing, in which the peer keeps over restarts what others gave it to hold, and peers
        to come back through when no bootstrap peer answers; one for each identity. How it does is `peer.dht.storage`.
        Beside it stands the journal of its leases and of the processes that it runs for them: what a killed peer has
        left of those is ended before the next one opens.
        Another, STATE-grants, has the grants that it holds and the revocations that it knows.
        mdns: whether to announce the peer by multicast DNS on the networks it listens on, and to join through peers
        found there. relay: whether to relay for peers that nobody can dial, as long as others can dial this one:
        at most 16 MB/s of what those encrypt among themselves. relayed: whether to be reached through others' relays
        while nobody can dial this peer. upnp: whether to ask the router, by UPnP, to let this peer be dialled from
        outside; where it does not, a warning is logged and the peer runs all the same.

    Raises IdentityFileError, StateFileError, NetworkKeyError, InviteError, AddressError, ListenError, BootstrapError
    (or the one address's DialError), MdnsError, UsageError: nothing is left running then.
    """
    if not isinstance(identity, Identity):
        identity = Identity.generate() if identity is None else Identity.load_or_create(identity)
    addresses = [listen_address(address) for address in addresses_argument(listen)]
    way_in = entrance(
        addresses_argument(bootstrap.text if isinstance(bootstrap, Invite) else bootstrap),
        None if network_key is None else NetworkKey.of(network_key),
        time.time(),
    )
    targets = way_in.addresses
    for target in targets:
        split_address(target)  # fail before anything starts
    if network is not None and way_in.network_key is not None:
        raise UsageError(
            "a network key is for libp2p connections: give it to the network of your own, if it has one"
        )
    if not isinstance(cast(object, config), NodeConfig | None):
        raise UsageError(
            f"config is a NodeConfig, such as NodeConfig(dht=DhtConfig(server=False)), not {type(config).__name__}"
        )
    for name, value in (("mdns", mdns), ("relay", relay), ("relayed", relayed), ("upnp", upnp)):
        if not isinstance(cast(object, value), bool):
            raise UsageError(f"{name} is True or False, not {value!r}")
    config = config or NodeConfig()
    dht_protocol = protocol_argument(dht_protocol)
    if dht_protocol == DEFAULT_DHT_PROTOCOL and way_in.dht_protocol:
        dht_protocol = protocol_argument(way_in.dht_protocol)
    protocols = node_protocols(dht_protocol)
    network = network or _libp2p_host(
        identity, addresses, protocols, config, way_in.network_key, _relaying(relay, relayed), upnp
    )
    config = _with_revocations(config)
    keys = LeaseKeys(identity.sign, verify, identity.seal_to, identity.open_sealed, os.urandom)
    engine = NodeEngine(identity.peer_id, keys, random.Random(os.urandom(16)), guarded(config))
    driver: Driver[NodeCommand, NodeOutput] = Driver(engine, network)

    def save_all() -> None:
        try:
            driver.post(SaveState(whole=True))
        except Overloaded:
            pass  # it is asked for again

    async with (
        open_storage(state, identity.peer_id, save_all) as storage,
        open_journal(state) as journal,  # the state's lock is its lock too
    ):
        remembered = () if storage is None else storage.remembered
        other_dht = "" if dht_protocol == DEFAULT_DHT_PROTOCOL else dht_protocol
        swarm = Membership(way_in.network_key, other_dht)
        grants = None if state is None else GrantFile(grants_path(state))
        kept = Kept() if grants is None else await trio.to_thread.run_sync(grants.read)
        path = None if state is None else Path(state)
        peer = Peer(identity, engine, network, driver, storage, swarm, journal, grants, kept, path)
        await _hold_all(peer, way_in.grants)
        async with peer.running(Targets.of(identity.peer_id, targets, remembered, str(state)), mdns):
            yield peer


def _with_revocations(config: NodeConfig) -> NodeConfig:
    """Of the lists of revocations that it keeps for others in the DHT, a peer keeps genuine ones, and the newest."""
    validators = {NAMESPACE: RevocationRules(verify), **config.dht.validators}
    return replace(config, dht=replace(config.dht, validators=validators))


async def _hold_all(peer: Peer, grants: Iterable[Grant]) -> None:
    """Keep what came with invites; an invite whose grant is over is still a way in."""
    for grant in grants:
        try:
            await peer.hold(grant)
        except GrantError as problem:
            _log.warning("the grant that came with the invite is left out: %s", problem)


def _relaying(relay: bool, relayed: bool) -> RelayConfig:
    usual = RelayConfig(serve=relay)
    return usual if relayed else replace(usual, wanted=0)


def node_protocols(dht_protocol: str = DEFAULT_DHT_PROTOCOL) -> tuple[WireProtocol, ...]:
    """Every protocol that a node speaks."""
    return (
        _dht_protocol(dht_protocol),
        record_protocol(),
        pubsub_protocol(),
        loads_protocol(),
        lease_protocol(),
        mesh_protocol(),
    )
