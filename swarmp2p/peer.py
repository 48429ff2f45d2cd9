"""A running peer: what can be done with it. opening.py makes one."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio
from multiaddr.multiaddr import Multiaddr

from .announcement import Announcement
from .arguments import (
    bytes_argument,
    count_argument,
    folder_argument,
    log_folder,
    many_argument,
    mapping_argument,
    peer_argument,
    protocol_argument,
    seconds_argument,
    text_argument,
)
from .choosing import MAX_PROBES, Choosing
from .dht.announcing import MAX_INDEXED
from .dht.disjoint import checked_paths
from .dht.events import (
    FindService,
    Join,
    ProvideProgress,
    ProviderFound,
    QueryDone,
    ServiceFound,
    StateChanged,
)
from .dht.records import Attribute, ServiceRecord, check_attributes
from .dht_client import Dht
from .driver import Driver
from .engine import PeerInfo
from .errors import BadMessage, DialError, UsageError
from .gossip.balancer import ADAPTIVE, ANYWHERE, Choice, Placement, Rule
from .gossip.coordinates import Coordinate, decode_coordinate
from .gossip.events import Delivered, SetAppScore, Validate
from .gossip.load import (
    FollowLoads,
    LoadSignal,
    LoadSuspected,
    LoadTable,
    LoadTold,
    LoadUpdated,
    PublishLoad,
    SetLoad,
    decode_signal,
    encode_signal,
)
from .gossip.messages import check_topic
from .grant_file import GrantFile, Kept
from .granting import Granting, Revocation, grant_argument
from .hearsay import MAX_ADDRESSES
from .identity import Identity, PeerId
from .invite import Invite, grant_capability, invitable
from .joining import Targets
from .judging import MessageValidator
from .lease_journal import LeaseJournal
from .lending import Lending, peer_set
from .market import Market
from .network_key import NetworkKey
from .node import NodeCommand, NodeEngine, NodeOutput
from .paths import paths_argument
from .pubsub import Pubsub
from .queries import Found, Queries, Results, with_peer
from .ray_bridge.events import Journal as Noted
from .ray_bridge.events import Need, Offer
from .ray_bridge.grant_terms import Terms
from .ray_bridge.grants import Grant
from .ray_bridge.package_index import index_wanted
from .running import Running
from .scopes import cancel_scope
from .settings import check_types
from .storage.journal import Journal
from .storage.storage import Storage
from .subscription import Subscription
from .transport.addresses import split_address
from .transport.network import PeerNetwork, PeerStream, StreamHandler
from .transport.reachability import Status

if TYPE_CHECKING:
    from .begun_head import BegunHead
    from .ray_bridge.cluster import Cluster

_WITHDRAW_S: Final = 2.0  # how long leaving an announcement waits; records expire by themselves after that


@dataclass(frozen=True, slots=True)
class Membership:
    """Which swarm a peer is in. network_key: of a private one. dht_protocol: empty for the usual one."""

    network_key: NetworkKey | None = None
    dht_protocol: str = ""


class Peer:
    """One running peer; made by `open_peer()`. Everything on it belongs to the trio run that opened it."""

    def __init__(
        self,
        identity: Identity,
        engine: NodeEngine,
        network: PeerNetwork,
        driver: Driver[NodeCommand, NodeOutput],
        storage: Storage | None = None,
        swarm: Membership = Membership(),
        journal: Journal | None = None,
        grants: GrantFile | None = None,
        kept: Kept | None = None,
        state: Path | None = None,
    ) -> None:
        self._swarm = swarm
        self._identity, self._engine, self._network, self._driver = identity, engine, network, driver
        self._queries = Queries(driver.post)
        self._pubsub = Pubsub(self._queries.check_open, driver.post)
        self._choosing = Choosing(self._queries.check_open, driver.post, engine.loads.table)
        self._granting = Granting(self, driver.post, grants, kept)
        self._leases = LeaseJournal(journal, driver.post)
        self._market = Market(
            self,
            driver.post,
            engine.loads.table,
            self._choosing,
            self._granting,
            self._leases.claim,
            engine.leases.signed,
            state,
        )
        self._looked_at_loads = False
        self._announced: dict[str, None] = {}
        self._storage = storage
        self.dht = Dht(engine.dht, self._queries, storage)

    @property
    def id(self) -> PeerId:
        """This peer's id."""
        return self._identity.peer_id

    @property
    def identity(self) -> Identity:
        """The key that this peer is."""
        return self._identity

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        """Where others can dial this peer: multiaddrs ending in /p2p/<id>."""
        return tuple(with_peer(address, self.id) for address in self._network.addresses)

    @property
    def connected(self) -> tuple[PeerId, ...]:
        """Peers with which a connection stands now."""
        return self._network.connected

    def ip_of(self, peer: PeerId) -> str:
        """The IP address that a connected peer is at; "" for one that is reached through a relay, or not connected."""
        return self._network.ip_of(peer)

    @property
    def network_key(self) -> NetworkKey | None:
        """The key of the private swarm that this peer is in; None in an open one."""
        return self._swarm.network_key

    def invite(
        self, *, expires_in_s: float | None = None, capability: bytes = b"", grant: Grant | str | None = None
    ) -> Invite:
        """An invite to this peer's swarm, with this peer's addresses as they are now; its `text` is what to pass on.

        expires_in_s: seconds for which it can be used; None for ever. capability: what you grant to its holder, at most
        512 bytes that swarmp2p only carries. In a private swarm the invite holds the swarm's key: whoever reads it is
        in. grant: a permission to lease that goes with it (`grant(None, ...)` makes one for whoever has the invite);
        who opens a peer with the invite holds it. Raises UsageError when this peer listens nowhere.
        """
        if grant is not None:
            if capability:
                raise UsageError("an invite has a capability or a grant, not both")
            capability = grant_capability(grant_argument(grant))
        ends = None if expires_in_s is None else self.now() + seconds_argument(expires_in_s, "expires_in_s")
        return Invite.issue(
            self._identity,
            invitable(self.addresses),
            network_key=self._swarm.network_key,
            dht_protocol=self._swarm.dht_protocol,
            capability=bytes_argument(capability, "a capability"),
            expires=ends,
        )

    @property
    def reachability(self) -> Status:
        """Whether others can dial this peer: "reachable", "unreachable", or "unknown" while that is a guess. It
        chooses `dht.mode`."""
        return self._network.reachability

    @property
    def loads(self) -> LoadTable:
        """The newest load signal of each provider.

        It fills while the peer lends, borrows or `follow_loads`, and from the first look at it on: peers that
        nobody asks for loads need not carry them.
        """
        if not self._queries.closed and not self._looked_at_loads:
            self._looked_at_loads = True
            self._driver.post(FollowLoads())
        return self._engine.loads.table

    @property
    def coordinate(self) -> Coordinate:
        """Where this peer is, as far as round trips have told (Vivaldi; `error` says how well it is known)."""
        return self._engine.places.vivaldi.coordinate

    def distance(self, peer: PeerId | str, other: PeerId | str | None = None) -> float | None:
        """The predicted round trip between a peer and another, or this one, in seconds; no message is sent, and they
        need not have spoken.

        None when it is not known where either is, or one of them has measured nothing yet: coordinates come with DHT
        answers (of the last 4,096 peers that answered) and load signals (of the providers in `loads`), and only from
        peers of swarmp2p. Raises UsageError for a text that is no peer id.
        """
        there = self.id if other is None else peer_argument(other)
        return self._engine.places.distance(peer_argument(peer), there)

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """What this peer has counted since it was opened: "gossip" (GossipStats says what each counter is), "loads"
        (LoadStats), and "network" with messages sent, received and, as "dropped: ...", lost on this side by cause."""
        return {
            "gossip": asdict(self._engine.gossip.stats),
            "loads": asdict(self._engine.loads.stats),
            "network": dict(self._network.counters),
        }

    def now(self) -> float:
        """The peer's clock: seconds since the Unix epoch, never going backwards."""
        return self._driver.now()

    async def connect(self, address: Multiaddr | str) -> PeerId:
        """Connect to a peer and join its network; returns its id.

        Raises AddressError for a text that is no address with /p2p/<id>, PeerMismatch when another peer
        answers there, DialError when nobody does.
        """
        peer, transport = split_address(address)
        self._queries.check_open()
        await self._network.dial_peer(peer, (transport,))
        await self._queries.run(lambda query: Join(query, (PeerInfo(peer, (transport,)),)))
        return peer

    @asynccontextmanager
    async def announce(
        self,
        service: str,
        attributes: Mapping[str, Attribute] | None = None,
        index: Iterable[str] | None = None,
    ) -> AsyncGenerator[Announcement, None]:
        """Announce a service while the context is open; withdrawn on exit. A peer has one record of each service:
        `update` what is yielded to change it.

        attributes: str to str, int, float or bool, at most 512 bytes with signature. Raises UsageError otherwise,
        and when this peer announces the service already.
        index: names of those that finders may look up by themselves once the service has very many providers: texts
        of at most 32 bytes, eight at most; by default all that are.
        """
        names = None if index is None else _index_argument(index)
        announcement = Announcement(self._queries, text_argument(service, "a service's name"), names)
        if service in self._announced:
            raise UsageError(
                f"this peer announces {service!r} already; change that with its update(), or close it first. "
                "Nothing was changed"
            )
        self._announced[service] = None
        try:
            await announcement.update({} if attributes is None else attributes)
            try:
                yield announcement
            finally:
                with cancel_scope(shield=True), trio.move_on_after(_WITHDRAW_S):
                    await announcement.withdraw()
        finally:
            del self._announced[service]

    def find(
        self,
        service: str,
        where: Mapping[str, Attribute] | None = None,
        limit: int | None = 0,
        *,
        paths: int | None = None,
    ) -> Results[ServiceRecord]:
        """Iterate over the verified records of a service, each as soon as it is known; a newer record of the
        same provider may follow. where: attributes that must be equal. limit: 0 or None for all that are found. Of a
        service with more providers than one key holds (32), up to 128 are a fair sample: each is equally likely.
        paths: as for `peer.dht`.

        Raises UsageError for what no record can say."""
        conditions = {} if where is None else where
        mapping_argument(conditions, "where")
        check_attributes(text_argument(service, "a service's name"), conditions)
        wanted, most = tuple(sorted(conditions.items())), count_argument(limit, "limit")
        over = checked_paths(paths)

        def convert(found: Found) -> ServiceRecord:
            assert isinstance(found, ServiceFound)
            # A provider that nobody can dial serves no DHT: its record alone says through which relay it is reached.
            self._network.introduce(found.record.provider, found.addresses[:MAX_ADDRESSES])
            return found.record

        return Results(self._queries, lambda query: FindService(query, service, wanted, most, over), convert)

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """Receive a topic's messages while the context is open."""
        return self._pubsub.subscribe(topic)

    def validate(
        self, topic: str, validator: MessageValidator, *, timeout_s: float = 10.0
    ) -> AbstractAsyncContextManager[None]:
        """Judge a topic's messages while the context is open, before they are delivered and passed on to others.

        validator: called with each genuine message of others while the peer subscribes to the topic; returns an
        Acceptance: ACCEPT, IGNORE, or REJECT, for which those who sent the message pay with their score. It may be
        async; 64 run at once, in no promised order, and 1,024 messages wait at most, a quarter of them of one
        neighbour. One that raises, or needs more than `timeout_s` seconds, has ignored the message. Other messages do
        not wait for it.

        Raises UsageError for a topic that has a validator.
        """
        return self._pubsub.validate(topic, validator, timeout_s)

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign data and send it to the topic's subscribers; best effort. Raises UsageError for data
        of more than about 1 MiB and for an unusable topic; nothing is sent then."""
        await self._pubsub.publish(topic, data)

    def subscribers(self, topic: str) -> tuple[PeerId, ...]:
        """Connected peers that have said that they subscribe to a topic: those to whom `publish` would send now. What
        is published while there are none reaches nobody."""
        check_topic(text_argument(topic, "a topic"))
        return self._engine.gossip.subscribers(topic)

    def score(self, peer: PeerId | str) -> float:
        """What gossip thinks of a peer (gossipsub 1.1, "Peer Scoring"): 0 for who did neither good nor harm, and for
        strangers; below 0 a peer is in no mesh, and ScoreConfig says what else it loses."""
        return self._engine.gossip.score(peer_argument(peer), self.now())

    async def set_app_score(self, peer: PeerId | str, value: float) -> None:
        """Have gossip count what the application thinks of a peer, connected or not, until it is said anew (P5, the
        application-specific score): above 0 good, below 0 bad, 0 nothing. It is added to the peer's score; from
        `ScoreConfig.graylist_threshold` (-2500) on, nothing is taken from the peer. The last 10,000 peers named count.

        Raises UsageError for a value that is no finite number.
        """
        said = SetAppScore(peer_argument(peer), value)
        self._queries.check_open()
        self._driver.post(said)
        await trio.lowlevel.checkpoint()

    async def set_load(self, signal: LoadSignal | None) -> None:
        """Say how loaded this peer is, as often as you like; None: it is no provider any more. Signals are sent when
        that has changed by a tenth, twice a second at most, and every 5 s anyway (`SenderConfig`)."""
        if signal is not None:
            _check_signal(signal)
        self._queries.check_open()
        self._driver.post(SetLoad(signal))
        await trio.lowlevel.checkpoint()

    async def publish_load(self, signal: LoadSignal) -> None:
        """Sign a load signal and spread it now, once; sequence and expiry are filled in. A peer that has load to tell
        of all the time uses `set_load`."""
        _check_signal(signal)
        self._queries.check_open()
        self._driver.post(PublishLoad(signal))
        await trio.lowlevel.checkpoint()

    def follow_loads(self) -> AbstractAsyncContextManager[LoadTable]:
        """Keep `loads` filled while the context is open."""
        return self._market.follow_loads()

    async def probe(
        self, providers: Iterable[PeerId | str], *, timeout_s: float = 0.25
    ) -> dict[PeerId, LoadSignal]:
        """Ask providers how loaded they are now: one round trip, `timeout_s` seconds at most, at most 64 at once.
        Those that do not answer in time are missing from what is returned. Those not connected are dialled."""
        asked = [peer_argument(provider) for provider in many_argument(providers, "providers")]
        told = await self._choosing.probe(asked, seconds_argument(timeout_s, "timeout_s"))
        return {provider: each.signal for provider, each in told.items() if each.signal is not None}

    async def choose(
        self,
        need: Need | None = None,
        *,
        outstanding: Mapping[PeerId, int] | None = None,
        rule: Rule = ADAPTIVE,
        placement: Placement = ANYWHERE,
        probes: int = 0,
        timeout_s: float = 0.25,
    ) -> list[Choice]:
        """Providers in `loads` that fit the need, best first, each with its `reason`.

        outstanding: own requests to each that its signal does not count yet. rule: how those that fit are ranked.
        placement: where they should be. probes: so many of the best, at most 16, are asked how loaded they are now,
        `timeout_s` seconds at most: those busier than expected step back. One does most of it.
        """
        if count_argument(probes, "probes") > MAX_PROBES:
            raise UsageError(f"at most {MAX_PROBES} providers are probed for a choice, not {probes}")
        timeout_s = seconds_argument(timeout_s, "timeout_s")
        self._queries.check_open()
        return await self._choosing.choose(
            self.loads, need or Need(), self.now, outstanding, rule, placement, probes, timeout_s
        )

    def grant(
        self,
        to: PeerId | str | None,
        *,
        under: Grant | str | None = None,
        expires_in_s: float | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        memory_bytes: int | None = None,
        leases: int | None = None,
        lease_s: float | None = None,
        lenders: Iterable[PeerId | str] = (),
        owner: Identity | None = None,
    ) -> Grant:
        """Permit a peer to lease from all lenders that trust this peer's key: from this one, and from those that `lend`
        with it among their grantors. What comes back is to be passed on to it; `text` of it can be pasted.

        to: who may use it, and pass it on, narrowed; None for whoever has it (a ticket, to be kept secret).
        expires_in_s: seconds from now; 30 days by default, 366 at most. cpus, gpus, memory_bytes: most of one lease.
        leases: at a time, at one lender. lease_s: seconds after which a lease ends, however often it is renewed.
        lenders: the only ones at which it counts. under: a grant that this peer holds, or a ticket: it is passed on,
        and can only be narrowed. owner: another key than this peer's to give it with.

        Raises UsageError, also for what would widen; GrantError for a text that is no grant.
        """
        named = peer_set(lenders) or frozenset()
        terms = Terms(0.0, cpus=cpus, gpus=gpus, memory_bytes=memory_bytes, leases=leases, lease_s=lease_s)
        terms = replace(terms, lenders=tuple(sorted(named)))
        return self._granting.grant(to, under, expires_in_s, terms, owner or self._identity)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The grants that this peer holds: `borrow` shows each lender the one that may count there."""
        return tuple(self._granting.held.values())

    async def hold(self, grant: Grant | str) -> Grant:
        """Keep a grant that was given to this peer, or a ticket, for `borrow`; kept over restarts where the peer has a
        state file. The 64 that last longest are kept. Returns it as this peer holds it. Raises GrantError for one
        of another peer, or that has expired."""
        return await self._granting.hold(grant)

    async def revoke(
        self,
        *what: Grant | PeerId | str,
        everything: bool = False,
        owner: Identity | None = None,
    ) -> Revocation:
        """Take grants of this peer back: workers that rest on them end within seconds at lenders that are connected.

        what: grants (also all that was made of them is void), or peers (they may use nothing that was granted before
        now, and nobody may use what they passed on). At this peer's own lending a peer that is named loses every lease,
        and its place in `allow`. everything: all grants that were given so far. owner: another key than this peer's.

        Lenders elsewhere hear of it by gossip, those that come later from the DHT. Nothing that was revoked comes back;
        a new grant counts again. Raises UsageError for grants of other owners, and when 256 are revoked already.
        """
        return await self._granting.revoke(what, everything, owner or self._identity)

    def lend(
        self,
        offer: Offer | None = None,
        *,
        allow: Iterable[PeerId | str] | None = (),
        grantors: Iterable[PeerId | str] = (),
        logs: str | os.PathLike[str] | None = None,
        paths: Iterable[str] = ("direct", "overlay"),
        snapshots_bytes: int = 0,
    ) -> AbstractAsyncContextManager[Lending]:
        """Lend Ray workers while the context is open; leases given are ended on exit.

        paths: how a cluster's traffic may go to its worker. "direct": plain TCP, taken where head and worker are on one
        machine and in one network namespace. "overlay": encrypted end to end, between members of the cluster alone; the
        worker has a network of its own, in which nothing else can be reached. It is the one taken otherwise.
        "wireguard", where both sides name it and may make interfaces (root; docs/mesh.md): before the overlay.

        allow: peers that may lease; None for everybody, nobody by default. grantors: owners whose grants count here, as
        those of this peer's own key always do (`grant`). logs: folder for the workers'
        logs, one folder a lease, of which the latest 64 are kept, 1 GiB together, beside those of leases that stand; by
        default only those of workers that failed are kept, 16 of them.

        snapshots_bytes: room for snapshots of clusters of peers that may lease (`borrow(snapshots=...)`), none by
        default; one has at most a quarter of it. They are sealed: nobody here can read them. They are kept beside the
        peer's state file, a week at most, and without one only while this lends.

        Raises RayMissing.
        """
        if not isinstance(cast(object, offer), Offer | None):
            raise UsageError(f"an Offer is lent, not {offer!r}")
        trusted = peer_set(grantors) or frozenset()
        return self._market.lend(
            offer or Offer(),
            allow,
            log_folder(logs),
            paths_argument(paths),
            trusted,
            count_argument(snapshots_bytes, "snapshots_bytes"),
        )

    def borrow(
        self,
        need: Need | None = None,
        *,
        workers: int | tuple[int, int] = 1,
        min_workers: int | None = None,
        timeout_s: float = 60.0,
        lenders: Iterable[PeerId | str] | None = None,
        grants: Iterable[Grant | str] | Grant | None = None,
        placement: Placement | None = None,
        logs: str | os.PathLike[str] | None = None,
        paths: Iterable[str] = ("direct", "overlay"),
        idle_s: float = 60.0,
        gang: bool = False,
        orders: bool = False,
        cluster_state: str | os.PathLike[str] | None = None,
        begun: BegunHead | None = None,
        snapshots: int = 0,
        restore: bool = False,
        index: Iterable[str] | str | None = None,
        index_hosts: Iterable[str] | str = (),
    ) -> AbstractAsyncContextManager[Cluster]:
        """Start a Ray head and lease workers for it; all are released on exit.

        workers: how many, or two bounds such as (2, 16): then their number follows what Ray's tasks, actors and
        placement groups wait for (their label selectors on "swarmp2p.kind", "swarmp2p.region" and lenders' own labels
        too), and workers that were idle for `idle_s` seconds are given back.

        gang: have all of them (the lower bound) or none: lenders set workers aside until all are found, and nothing
        starts before; those lost later are replaced one by one.
        orders: have no workers but those that `cluster.order(need)` asks for, up to the upper bound.

        cluster_state: directory for what the cluster is to keep when this process ends; made if it is not there, and
        readable by nobody else. Who borrows with it again goes on with the same cluster: its address and token, its
        detached actors, placement groups and packages, and, after a crash of at most some 8 s, the workers that still
        run, if the peer has a state file and the same identity.
        begun: a head that was begun before this peer was opened (begun_head.py); `logs` and `cluster_state` do not
        count then.
        snapshots: have so many peers, 16 at most, each hold a copy of that: lenders that say so (`snapshots_bytes`). It
        is sealed to this peer's key, and given again when it changed, every 5 s at most. A peer can have those of one
        cluster at a time.
        restore: when there is no cluster in `cluster_state` yet, go on with the newest snapshot that others hold of
        this peer's, found within `timeout_s` seconds: on another machine with the same identity, detached actors that
        may be restarted, jobs and packages are there again, and workers are leased anew. What ran on the former machine
        must have ended.
        index: addresses of the package indexes that `runtime_env={"pip": [...]}` finds packages in, the main one first;
        None for those that pip uses here, but for local ones and such that take a password; () for none. Workers reach
        them through this machine, and no other host of its network. What is named here lenders can read, a password
        in it, too.
        index_hosts: hosts, with their ports if those are not 443, that files of these indexes come from, where they are
        not the indexes' own nor that of pip's.

        Yields once `min_workers` run (all of them, or the lower bound, by default; 0 yields at once); the cluster goes
        on hiring until it has `workers`, and replaces those that are lost. While the context is open, this process's
        environment holds RAY_ADDRESS and the cluster's token, so that `ray.init()` finds and may use it; on
        exit `ray.shutdown()` is called if it is still connected. lenders: the only peers to lease from; None
        for whoever announces itself. Whoever grants a lease gets the cluster's token, which is full power over
        the cluster, and this process unpickles what its workers return: name lenders that you trust.
        grants: permissions to lease that lenders may be shown; None for those that this peer holds (`grants`, `hold`).
        placement: where the workers should be (affinities, spreads over regions); by default anywhere, near for kinds
        that are meant to be. Each is of another lender, while there are enough of those. logs: folder for the head's
        log, which is by default only kept when the head fails. paths: as for `lend`; `cluster.workers[i].path` says
        which was taken, and `path_reason` why.

        Raises NotEnoughWorkers after `timeout_s` seconds, RayMissing, HeadFailed (also in the body, when the
        head dies while it is in use); with restore, NoSnapshot.
        """
        if not isinstance(cast(object, need), Need | None):
            raise UsageError(f"a Need is borrowed for, such as Need(cpus=2), not {need!r}")
        return self._market.borrow(
            need or Need(),
            workers,
            min_workers,
            timeout_s,
            peer_set(lenders),
            log_folder(logs),
            placement,
            paths_argument(paths),
            seconds_argument(idle_s, "idle_s"),
            gang,
            grants,
            orders,
            folder_argument(cluster_state, "cluster_state"),
            begun,
            count_argument(snapshots, "snapshots"),
            bool(restore),
            index_wanted(index, index_hosts),
        )

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serve a protocol of your own: `handler(stream)` runs for each stream that another peer opens.

        A handler that raises ends its own stream and nothing else.
        """
        if not callable(handler):
            raise UsageError(f"the handler of {protocol} is an async function of a stream, not {handler!r}")
        self._network.set_handler(protocol_argument(protocol), handler)

    def unhandle(self, protocol: str) -> None:
        """Serve a protocol of your own no longer; streams that are open stay."""
        self._network.remove_handler(protocol_argument(protocol))

    async def open_stream(self, peer: PeerId | str, protocol: str) -> PeerStream:
        """Open a stream of your own protocol; the peer is looked up when its address is not known.

        Raises ProtocolUnsupported, PeerNotFound, DialError.
        """
        target, protocol = peer_argument(peer), protocol_argument(protocol)
        self._queries.check_open()
        try:
            return await self._network.open_stream(target, protocol)
        except DialError:
            found = await self.dht.find_peer(target)
            self._network.introduce(target, [a.decapsulate_code(0x01A5).to_bytes() for a in found.addresses])
            return await self._network.open_stream(target, protocol)

    # ----------------------------------------------------------------------------------------------------------

    def running(self, targets: Targets, mdns: bool = False) -> AbstractAsyncContextManager[None]:
        """Run the peer while the context is open: what `open_peer` does once everything is put together."""
        return Running(
            self._engine,
            self._network,
            self._driver,
            self._queries,
            self._storage,
            self._leases,
            self._output,
            self._close,
        ).running(targets, mdns)

    def _output(self, output: NodeOutput) -> None:
        if isinstance(output, ProviderFound | ServiceFound | ProvideProgress | QueryDone):
            self._queries.handle(output)
        elif isinstance(output, Delivered | Validate):
            self._pubsub.output(output)
        elif isinstance(output, StateChanged):
            if self._storage is not None:
                self._storage.put(output)
        elif isinstance(output, LoadTold):
            self._choosing.output(output)
        elif isinstance(output, Noted):
            self._leases.write(output)
        elif not isinstance(output, LoadUpdated | LoadSuspected):
            self._market.output(output)

    def _close(self) -> None:
        self._queries.close()
        self._choosing.close()
        self._pubsub.close()


def _check_signal(signal: object) -> None:
    if not isinstance(signal, LoadSignal):
        raise UsageError(
            f"a LoadSignal is published, such as LoadSignal(cpus_free=4, in_flight=1), not {signal!r}"
        )
    check_types(signal)
    try:
        decode_signal(encode_signal(signal))
        if signal.coordinate:
            decode_coordinate(signal.coordinate)
    except (BadMessage, TypeError) as problem:
        raise UsageError(f"others would drop {signal}: {problem}") from None


def _index_argument(index: object) -> tuple[str, ...]:
    names = dict.fromkeys(
        text_argument(name, "an attribute's name") for name in many_argument(index, "names of attributes")
    )
    if len(names) > MAX_INDEXED:
        raise UsageError(f"at most {MAX_INDEXED} attributes can be looked up by themselves, not {len(names)}")
    return tuple(names)
