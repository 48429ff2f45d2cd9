"""A Ray driver of benchmarks/bridge.py, as a process of its own: does what the lines of its input say.

    python -m benchmarks.bridge_driver          with a cluster's environment

    init      connect, anew if it was connected
    task      run one task that does nothing
    light     the same on half a CPU, since `count` has some of the worker's
    count     have the detached actor count on; it lives on a worker
    each N    run a task on each of N workers, which wait for nobody
    stay      begin a task that does not end, and wait until it runs
    moved     wait until that task has begun a second time
    leave     cancel it

Each is answered by a JSON object: {"at": when that was, as time.monotonic(), "value": of `count`}.

    python -m benchmarks.bridge_driver cluster BOOTSTRAP WORKERS

calls `ray_cluster`, runs a task on each of its workers, and prints {"seconds": from the call to the last one's result,
"steps": [[seconds, what], ...], what came when on the way}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

import ray as _ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray: Any = _ray  # partly typed: what is not would have to be ignored call by call

_LIMIT_S: Final = 120.0
_POLL_S: Final = 0.02


def nothing() -> int:
    """A task."""
    return 1


class Counter:
    """An actor with a state."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> int:
        """How many times this was called."""
        self._count += 1
        return self._count


class Starts:
    """Who began, on the head's node: an actor that outlives every worker."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def note(self, at: float) -> None:
        """A task has begun."""
        self._seen.append(at)

    def seen(self) -> list[float]:
        """When tasks have begun."""
        return list(self._seen)


def stay(starts: Any, seconds: float) -> None:
    """A task that says when it begins, and does not end."""
    ray.get(starts.note.remote(time.monotonic()))
    time.sleep(seconds)


def on(node: str, task: Any, **options: object) -> Any:
    """A task or actor that runs on this node alone."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(task).options(scheduling_strategy=here, **options)


class Driver:
    """One connection after the other."""

    def __init__(self) -> None:
        self._counter: Any = None
        self._starts: Any = None
        self._staying: Any = None

    def do(self, line: str) -> dict[str, object]:
        """What a line asks for."""
        value: object = None
        word, *rest = line.split()
        match word:
            case "init":
                ray.shutdown()
                ray.init(logging_level="ERROR", log_to_driver=False, namespace="bench")
            case "task":
                value = ray.get(ray.remote(nothing).options(num_cpus=1).remote(), timeout=_LIMIT_S)
            case "light":
                value = ray.get(ray.remote(nothing).options(num_cpus=0.5).remote(), timeout=_LIMIT_S)
            case "count":
                made = ray.remote(Counter).options(
                    name="counter", lifetime="detached", get_if_exists=True, num_cpus=0.1
                )
                value = ray.get(made.remote().add.remote(), timeout=_LIMIT_S)
            case "each":
                value = each(int(rest[0]))
            case "stay":
                here = ray.get_runtime_context().get_node_id()
                self._starts = on(here, Starts, num_cpus=0).remote()
                task = ray.remote(stay).options(num_cpus=1, max_retries=-1)
                self._staying = task.remote(self._starts, 10 * _LIMIT_S)
                value = self._begun(1)
            case "moved":
                value = self._begun(2)
            case "leave":
                ray.cancel(self._staying, force=True)
                ray.kill(self._starts)
            case unknown:
                raise ValueError(unknown)
        return {"at": time.monotonic(), "value": value}

    def _begun(self, times: int) -> float:
        """When the task that stays began for the n-th time."""
        limit = time.monotonic() + _LIMIT_S
        while time.monotonic() < limit:
            seen = ray.get(self._starts.seen.remote(), timeout=_LIMIT_S)
            if len(seen) >= times:
                return float(seen[times - 1])
            time.sleep(_POLL_S)
        raise TimeoutError(f"the task has not begun {times} times within {_LIMIT_S:g} s")


def each(count: int) -> int:
    """Run a task on each of `count` workers as soon as it is there; how many there were."""
    waiting: dict[str, Any] = {}
    limit = time.monotonic() + _LIMIT_S
    while len(waiting) < count and time.monotonic() < limit:
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] not in waiting:
                waiting[node["NodeID"]] = on(node["NodeID"], nothing, num_cpus=1).remote()
        time.sleep(_POLL_S)
    return sum(ray.get(list(waiting.values()), timeout=_LIMIT_S))


def cluster(bootstrap: str, workers: int) -> dict[str, object]:
    """Seconds from the call of `ray_cluster` to the last worker's first result, and what came when."""
    import swarmp2p

    began, clock = time.monotonic(), time.time()
    with swarmp2p.ray_cluster(workers=workers, bootstrap=bootstrap, timeout_s=_LIMIT_S) as found:
        steps = [(time.monotonic() - began, "entered")]
        ray.init(found.address, logging_level="ERROR", log_to_driver=False)
        steps.append((time.monotonic() - began, "connected"))
        assert each(workers) == workers
        seconds = time.monotonic() - began
        steps += [(event.at - clock, f"{event.kind.value} {event.reason}") for event in found.events]
    return {"seconds": seconds, "steps": sorted(steps)}


def main(arguments: list[str]) -> None:
    """See the module."""
    if arguments:
        _, bootstrap, workers = arguments
        print(json.dumps(cluster(bootstrap, int(workers))), flush=True)
        return
    driver = Driver()
    for line in sys.stdin:
        print(json.dumps(driver.do(line)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
