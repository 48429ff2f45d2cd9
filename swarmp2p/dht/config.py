"""The settings of the DHT engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from ..errors import UsageError
from .disjoint import checked_paths
from .validators import Validator


@dataclass(frozen=True, slots=True)
class DhtConfig:
    """Settings of one DHT engine. Times are in seconds, bounds are counts.

    server: whether to answer others: True, False, or "auto": as long as others can dial this peer. A client only
        asks: its network does not list the protocol, so that others do not name it.
    k: peers that hold each record, and the size of a bucket (kad-dht spec: 20).
    alpha: requests in flight for one lookup (kad-dht spec: 10).
    find_window: of those, how many a find starts with once it is among peers that should hold the record; one
        more for each answer. A guess between cost and latency: one of three such peers nearly always has it.
    max_asked: requests that one lookup may send; whatever peers make up, it ends. 8 k.
    disjoint_paths: over how many a lookup goes, 1 to 8, where its command does not say (disjoint.py). More
        withstand peers that answer falsely, and cost requests.

    first_timeout_s: silence after which nobody waits for a peer, before anything is known of round trips (RFC 6298
        §2.1 begins with 1 s). Learnt afterwards (round_trips.py), between min_ and max_timeout_s. min: what a busy
        machine may keep an answer waiting in the same room, and still little beside one across a continent. max:
        several times the longest round trips on Earth (362 ms in p99 between 217 cities).
    dial_factor: how much longer a peer may take that must be dialled first: TCP, Noise and Yamux take four
        round trips.
    request_timeout_s: after this a request counts as failed (go and rust: 10 s). A late answer counts until
        then.
    query_timeout_s: after this a query ends with what it has.

    provider_ttl_s, provide_interval_s: how long provider records live, how often our own are stored again
        (kad-dht spec: 48 h, 22 h).
    record_ttl_s, announce_interval_s: the same for signed service records, which say that a service runs now:
        a crashed provider's record is gone after an hour, and two lost renewals do no harm.
    value_ttl_s, value_interval_s: how long values live (go: 48 h), how often our own are stored again.
    optimistic: whether a record is sent before all of its holders have answered, once the size of the network is known
        (optimistic.py).
    sweep_keys: publications of one kind from which on they are renewed region by region of the keyspace (renewals.py);
        fewer have a time each.
    sweep_regions: regions worked on at a time, each with one lookup. sweep_batch: keys sent at once; with k holders
        each and as many peers in a region, no peer gets more than that. sweep_pause_s: between two batches.
    clock_error_s: how far the clocks of peers may be apart.

    handover_interval_s: how often to look for newcomers that records are handed over to (handover.py); half as much
        more or less each time. A guess: records have k holders, so that a few minutes do no harm.

    refresh_interval_s: how often the own id and a random key of a bucket are looked up (kad-dht spec: 10 min).
    stale_s: how long a bucket goes without a lookup, and a peer of the table without a word, until one is made
        for it (Kademlia §2.3: an hour). Neighbours are asked with each refresh.
    retry_s: the same while no peer is known.
    recheck_s: how soon a peer that failed is asked again; after max_failures in a row it leaves the table.
    banish_s: for how long such a peer is not asked then, whoever names it; doubled each time up to an hour.
    client_s: for how long a connected peer that did not answer a probe is taken for a client and not probed again.
    around_crowds: whether keys whose nearest peers are suspiciously near are also stored and looked for beyond them
        (crowding.py).
    spare_probe_s: at most how often a newly connected peer is probed that would only become a spare. Those that we
        ask for something show without a probe that they serve.
    peers_per_group: peers of one /24 (IPv4) or /48 (IPv6) in a bucket, public addresses only (go: 2).
    peers_per_group_in_table: the same for the whole table: one of twenty in one of 200 (go: 3 by larger groups).

    max_provider_keys, max_providers_per_key, max_providers: bounds of the provider store (provider_store.py).
    max_values, max_value_bytes: bounds of the value store (value_store.py). A value and 20 peers fit into the
        16 KiB that every implementation takes.
    hot_after: requests in ten seconds for a service that is not held here, after which it is looked for and answered
        from a cache for half a minute; 0 for never (hot_keys.py). A guess.
    reply_providers: providers in one answer, a random sample of them when there are more.
    max_connected: peers whose connection is remembered; the oldest is forgotten beyond.
    max_probes: new peers that are being asked whether they serve the DHT; further ones are not asked.
    split_above, merge_below: a service whose key has more providers than the one is spread over shards, and back when
        a shard has fewer than the other (shards.py). 32 shards of 20 holders bring the records of the busiest of
        10,000 nodes to 2.5 times the mean, 64 to 3.1; fewer cost more requests for each result.
    max_found: results of one query; further ones are dropped.
    max_record_requests: providers that one query asks for their own record.
    max_queries: queries at a time; a further one ends at once, having asked nobody.
    state_interval_s: at most how often StateChanged comes: what a crash may lose.
    max_remembered, remember_interval_s: peers that StateChanged tells of for the next start, and how often the table
        is looked at for them; for the first time after a twelfth of it.
    validators: for values, by namespace: "pk" for keys "/pk/...". Keys of other namespaces take any value.
    """

    server: bool | Literal["auto"] = "auto"
    k: int = 20
    alpha: int = 10
    find_window: int = 3
    max_asked: int = 160
    disjoint_paths: int = 1

    first_timeout_s: float = 1.0
    min_timeout_s: float = 0.1
    max_timeout_s: float = 5.0
    dial_factor: float = 4.0
    request_timeout_s: float = 10.0
    query_timeout_s: float = 60.0

    provider_ttl_s: float = 48 * 3600.0
    provide_interval_s: float = 22 * 3600.0
    record_ttl_s: float = 3600.0
    announce_interval_s: float = 1200.0
    value_ttl_s: float = 48 * 3600.0
    value_interval_s: float = 22 * 3600.0
    optimistic: bool = True
    sweep_keys: int = 16
    sweep_regions: int = 4
    sweep_batch: int = 64
    sweep_pause_s: float = 0.5
    clock_error_s: float = 30.0
    handover_interval_s: float = 240.0

    refresh_interval_s: float = 600.0
    stale_s: float = 3600.0
    retry_s: float = 15.0
    recheck_s: float = 15.0
    max_failures: int = 2
    banish_s: float = 60.0
    client_s: float = 120.0
    around_crowds: bool = True
    spare_probe_s: float = 10.0
    peers_per_group: int = 2
    peers_per_group_in_table: int = 10

    max_provider_keys: int = 8_192
    max_providers_per_key: int = 512
    max_providers: int = 32_768
    max_values: int = 2_048
    max_value_bytes: int = 8_192
    hot_after: int = 8
    reply_providers: int = 20
    max_connected: int = 4_096
    max_probes: int = 64
    split_above: int = 32
    merge_below: int = 8
    max_found: int = 4_096
    max_record_requests: int = 32
    max_queries: int = 1_024
    state_interval_s: float = 0.5
    max_remembered: int = 128
    remember_interval_s: float = 60.0
    validators: Mapping[str, Validator] = field(default_factory=dict[str, Validator])

    def __post_init__(self) -> None:
        """Refuse what would fail far from here, or be taken for something else: UsageError."""
        if self.server not in (True, False, "auto"):
            raise UsageError(f"DhtConfig.server is True, False or 'auto', not {self.server!r}")
        for name in ("k", "alpha"):
            value: object = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"DhtConfig.{name} is a count of at least 1, not {value!r}")
        if not checked_paths(self.disjoint_paths):
            raise UsageError("DhtConfig.disjoint_paths is a number of 1 to 8, not None")
        for namespace, validator in self.validators.items():
            if not isinstance(cast(object, namespace), str) or "/" in namespace:
                raise UsageError(
                    f"a validator's namespace is text without slashes, such as 'pk' for '/pk/...', not {namespace!r}"
                )
            for method in ("validate", "select"):
                if not callable(getattr(validator, method, None)):
                    raise UsageError(
                        f"the validator of {namespace!r} has no method {method}(): {validator!r}; "
                        "swarmp2p.dht.validators.Validator says what one needs"
                    )
