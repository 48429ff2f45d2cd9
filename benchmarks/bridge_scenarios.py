"""What benchmarks/bridge.py measures of ours. Each scenario starts its peers, and returns figures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .bridge_fleet import Asked, BridgePeer, gcs_of, head_of, held, kill, start_driver
from .bridge_places import Place, far, near, switched
from .report import Figures, SideFailed, percentile, say

RTT_MS: Final = 50.0
_CLUSTER: Final = 3
_LENDERS: Final = 3
_BUSY: Final = 8
_IDLE_S: Final = 0.5
"""Until a worker without work is given back, where leases are to follow one another."""
_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """How much of everything. settle_s: for lenders to be warm. isolation: of the lenders' offers; "" for the usual."""

    leases: int = 20
    clusters: int = 3
    failovers: int = 10
    heads: int = 3
    cycles: int = 100
    workers: int = _BUSY
    settle_s: float = 4.0
    isolation: str = ""


@contextmanager
def swarm(
    places: AbstractContextManager[list[Place]],
    options: Options,
    leases: int = 1,
    directory: Path | None = None,
) -> Generator[tuple[list[Place], list[BridgePeer]], None, None]:
    """Lenders, warm, at all places but the first, which is the borrower's. leases: that each gives at a time."""
    offer: dict[str, object] = {"cpus": leases, "max_leases": leases}
    if options.isolation:
        offer["isolation"] = options.isolation
    with places as at:
        lenders: list[BridgePeer] = []
        for place in at[1:]:
            lenders.append(BridgePeer(place, [one.address for one in lenders[:1]], offer, directory))
        time.sleep(options.settle_s)
        yield at, lenders
        for lender in lenders:
            lender.end()


def _leases(places: AbstractContextManager[list[Place]], options: Options, count: int) -> list[float]:
    """Seconds from each of `count` lease requests to the first task on its worker; driver and head stand."""
    found: list[float] = []
    with swarm(places, options) as (at, lenders):
        borrower = BridgePeer(at[0], [lenders[0].address])
        driver = start_driver(at[0], borrower.borrow((0, 1), idle_s=_IDLE_S))
        for _ in range(count):
            asked = time.monotonic()
            done = driver.ask("task")["at"]
            found.append(done - borrower.asked())
            steps = [(at - asked, f"{kind} {why}") for at, kind, _, why in borrower.events() if at > asked]
            say(f"lease: {told(steps)}; its task ended {done - asked:.2f}: {found[-1]:.2f}")
            _until_given_back(borrower)
            time.sleep(options.settle_s / 4)  # the lender's pool is filled again
        driver.end()
        borrower.end()
    say(f"leases: {' '.join(f'{one:.2f}' for one in found)}")
    return found


def told(steps: Iterable[tuple[float, str]]) -> str:
    """What came when, in a line."""
    return ", ".join(f"{at:.2f} {what}".strip() for at, what in steps)


def _until_given_back(borrower: BridgePeer) -> None:
    limit = time.monotonic() + _WAIT_S
    while borrower.workers():
        if time.monotonic() > limit:
            raise SideFailed(f"an idle worker was not given back within {_WAIT_S:g} s")
        time.sleep(0.1)


def leases(options: Options) -> Figures:
    """From a lease request to the first task on a warm lender."""
    found = _leases(near(2), options, options.leases)
    return {
        "lease_to_task_p50_s": percentile(found, 0.5),
        "lease_to_task_p95_s": percentile(found, 0.95),
    }


def _clusters(places: Callable[[], AbstractContextManager[list[Place]]], options: Options) -> float:
    found: list[float] = []
    for _ in range(options.clusters):
        with swarm(places(), options) as (at, lenders):
            command = ("-m", "benchmarks.bridge_driver", "cluster", lenders[0].address, str(_CLUSTER))
            script = Asked("a script", at[0].python(*command))
            measured = script.read()
            found.append(measured["seconds"])
            script.end()
            say(f"cluster: {told(measured['steps'])}; third task {found[-1]:.2f}")
    say(f"clusters: {' '.join(f'{one:.2f}' for one in found)}")
    return percentile(found, 0.5)


def cluster(options: Options) -> Figures:
    """`ray_cluster(workers=3)` from the call to the third worker's first task: lenders warm, head cold."""
    return {"cluster_of_3_s": _clusters(lambda: near(1 + _CLUSTER), options)}


def distant(options: Options) -> Figures:
    """The same, and leases, at a round trip of 50 ms between all peers."""
    found = _leases(far(2, RTT_MS), options, max(1, options.leases // 4))
    return {
        "far_lease_to_task_p50_s": percentile(found, 0.5),
        "far_cluster_of_3_s": _clusters(lambda: far(1 + _CLUSTER, RTT_MS), options),
    }


def failover(options: Options) -> Figures:
    """A lender's packets are dropped: until its task has begun elsewhere."""
    found: list[float] = []
    with swarm(switched(1 + _LENDERS), options) as (at, lenders):
        borrower = BridgePeer(at[0], [one.address for one in lenders])
        driver = start_driver(at[0], borrower.borrow(1))
        for _ in range(options.failovers):
            driver.ask("stay")
            (worker,) = borrower.workers()
            lender = next(one for one in lenders if one.id == worker["peer"])
            assert lender.place.cable is not None
            lender.place.cable.cut()
            cut = time.monotonic()
            found.append(driver.ask("moved")["value"] - cut)
            lender.place.cable.mend()
            steps = [(at - cut, f"{kind} {why}") for at, kind, _, why in borrower.events() if at > cut]
            say(f"cut off: {told(steps)}; its task began {found[-1]:.2f}")
            driver.ask("leave")
            time.sleep(2 * options.settle_s)  # it comes back
        driver.end()
        borrower.end()
    say(f"failovers: {' '.join(f'{one:.2f}' for one in found)}")
    return {"failover_p95_s": percentile(found, 0.95), "failover_p50_s": percentile(found, 0.5)}


def head(options: Options) -> Figures:
    """GCS, and then all of the head, by kill -9, until tasks run again; a detached actor on a worker goes on."""
    servers, whole = list[float](), list[float]()
    kept, asked = 0, 0
    with swarm(near(2), options) as (at, lenders):
        borrower = BridgePeer(at[0], [lenders[0].address])
        driver = start_driver(at[0], borrower.borrow(1))
        count = int(driver.ask("count")["value"])
        for _ in range(options.heads):
            for victims, found in (([gcs_of(borrower.pid)], servers), (head_of(borrower.pid), whole)):
                began = time.monotonic()
                kill(victims)
                if found is whole:
                    driver.ask("init")
                    found.append(_light(driver) - began)
                else:
                    found.append(_light(driver) - began)
                asked += 1
                now = int(driver.ask("count")["value"])
                kept += now == count + 1
                count = now
                time.sleep(options.settle_s)
        driver.end()
        borrower.end()
    say(
        f"heads: {' '.join(f'{one:.2f}' for one in servers)}; all of it {' '.join(f'{one:.2f}' for one in whole)}"
    )
    return {
        "head_resume_s": percentile(servers, 0.5),
        "whole_head_resume_s": percentile(whole, 0.5),
        "actor_kept": kept / asked,
    }


def _light(driver: Asked) -> float:
    """When a task has run beside the actor."""
    return float(driver.ask("light")["at"])


def busy(options: Options) -> Figures:
    """Many leased workers on this machine: how many ran a task, and when the last one had."""
    with swarm(near(2), options, leases=options.workers) as (at, lenders):
        borrower = BridgePeer(at[0], [lenders[0].address])
        began = time.monotonic()
        driver = start_driver(at[0], borrower.borrow(options.workers))
        told = driver.ask(f"each {options.workers}")
        driver.end()
        borrower.end()
    return {"workers": float(told["value"]), "workers_s": told["at"] - began}


def cycles(options: Options) -> Figures:
    """Lease and release, again and again: what a lender holds after that and did not before."""
    with tempfile.TemporaryDirectory(prefix="b") as name:
        directory = Path(name)
        with swarm(near(2), options, directory=directory) as (at, lenders):
            (lender,) = lenders
            borrower = BridgePeer(at[0], [lender.address])
            driver = start_driver(at[0], borrower.borrow((0, 1), idle_s=_IDLE_S))

            def cycle() -> None:
                driver.ask("task")
                _until_given_back(borrower)

            for _ in range(max(2, options.cycles // 20)):
                cycle()
            time.sleep(2 * options.settle_s)
            before = held(lender.pid, directory)
            for _ in range(options.cycles):
                cycle()
            time.sleep(2 * options.settle_s)
            after = held(lender.pid, directory)
            driver.end()
            borrower.end()
    say(f"cycles: before {before}\ncycles: after  {after}")
    return {
        "leaked_processes": after.processes - before.processes,
        "leaked_sockets": after.sockets - before.sockets,
        "leaked_descriptors": after.descriptors - before.descriptors,
        "leaked_shm": after.shm - before.shm,
        "leaked_files": after.files - before.files,
        "memory_growth": after.memory_mb / before.memory_mb - 1,
    }


SCENARIOS: Final[Mapping[str, Callable[[Options], Figures]]] = {
    "leases": leases,
    "cluster": cluster,
    "distant": distant,
    "failover": failover,
    "head": head,
    "busy": busy,
    "cycles": cycles,
}
"""By name. `distant` and `failover` need a laboratory."""
