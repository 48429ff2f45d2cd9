"""A Ray program as anybody writes one: tasks, actors, placement groups, large objects, runtime environments, Ray Data.

    python tests/whole/acceptance.py DIRECTORY       with a cluster in its environment, of three workers with a CPU each

It knows nothing of whose cluster that is, prints a JSON object with its results, and those are the same on every one.
DIRECTORY is its working directory on all machines; it has the module `recipe`, and the wheel of a package `cutlery`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from typing import Any, Final

import numpy as np
import ray as _ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

ray: Any = _ray  # partly typed: what is not would have to be ignored call by call

_WORKERS: Final = 3
_LARGE_BYTES: Final = 200_000_000
_LIMIT_S: Final = 120.0


def square(number: int) -> int:
    """A task."""
    return number * number


def total(*numbers: int) -> int:
    """A task that waits for others."""
    return sum(numbers)


class Account:
    """An actor."""

    def __init__(self, balance: int) -> None:
        self._balance = balance

    def pay(self, amount: int) -> int:
        """What is left."""
        self._balance -= amount
        return self._balance


def digest(data: Any) -> str:
    """A task that needs all of a large object."""
    return hashlib.sha256(memoryview(data)).hexdigest()


def node() -> str:
    """Where a task runs."""
    return str(ray.get_runtime_context().get_node_id())


def cook() -> list[str]:
    """What a task finds of its environment: a module of the working directory, a file there, a package, a variable."""
    recipe, cutlery = importlib.import_module("recipe"), importlib.import_module("cutlery")
    with open("ingredients.txt", encoding="utf-8") as file:
        return [recipe.name(), file.read().strip(), cutlery.FORK, os.environ["GUESTS"]]


def tasks_and_actors() -> dict[str, object]:
    """A sum over tasks; three actors that are used in turn."""
    squares = [ray.remote(square).remote(number) for number in range(100)]
    accounts = [ray.remote(Account).options(num_cpus=0.1).remote(100 * n) for n in range(_WORKERS)]
    left = [account.pay.remote(7 * n) for n in range(5) for account in accounts]
    found = {"total": ray.get(ray.remote(total).remote(*squares)), "left": ray.get(left)}
    for account in accounts:
        ray.kill(account)
    return found


def spread_and_large() -> dict[str, object]:
    """Bundles on machines that all differ, each of which gets the same 200 MB."""
    group = placement_group([{"CPU": 1}] * _WORKERS, strategy="STRICT_SPREAD")
    ray.get(group.ready(), timeout=_LIMIT_S)
    data = np.random.default_rng(1).integers(0, 256, _LARGE_BYTES, dtype=np.uint8)
    large = ray.put(data)

    def on(bundle: int, task: Any) -> Any:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        return ray.remote(task).options(num_cpus=1, scheduling_strategy=where)

    nodes = ray.get([on(n, node).remote() for n in range(_WORKERS)], timeout=_LIMIT_S)
    digests = [ray.get(on(n, digest).remote(large), timeout=_LIMIT_S) for n in range(_WORKERS)]
    remove_placement_group(group)
    return {"nodes": len(dict.fromkeys(nodes)), "whole": [one == digest(data) for one in digests]}


def environment(directory: str) -> dict[str, object]:
    """A job's runtime environment, which comes from here: all of its files, and a package without any index."""
    wheel = next(name for name in sorted(os.listdir(directory)) if name.endswith(".whl"))
    return {
        "working_dir": directory,
        "env_vars": {"GUESTS": "7"},
        "py_modules": [os.path.join(directory, wheel)],
    }


def cooked() -> dict[str, object]:
    """What tasks find of it."""
    return {"cooked": ray.get([ray.remote(cook).remote() for _ in range(_WORKERS)], timeout=_LIMIT_S)}


def handwriting() -> dict[str, object]:
    """Ray Data over scikit-learn's 1,797 handwritten digits: how many there are of each, and how dark on average."""
    data: Any = importlib.import_module("ray.data")
    digits: Any = importlib.import_module("sklearn.datasets").load_digits()
    data.DataContext.get_current().enable_progress_bars = False
    rows = data.from_items(
        [{"digit": int(n), "pixels": pixels} for n, pixels in zip(digits.target, digits.data, strict=True)],
        override_num_blocks=6,
    )
    inked = rows.map_batches(ink, batch_size=256).filter(inky).take_all()
    found: dict[int, list[float]] = {}
    for row in inked:
        found.setdefault(int(row["digit"]), []).append(float(row["ink"]))
    return {
        "means": [round(sum(sorted(found[n])) / len(found[n]), 9) for n in sorted(found)],
        "counts": [len(found[n]) for n in sorted(found)],
    }


def ink(batch: dict[str, Any]) -> dict[str, Any]:
    """How dark each image of a batch is."""
    return {"digit": batch["digit"], "ink": np.stack(list(batch["pixels"])).mean(axis=1)}


def inky(row: dict[str, Any]) -> bool:
    """Whether somebody wrote something."""
    return bool(row["ink"] > 0)


def main() -> None:
    """Run all, and print what came out."""
    ray.init(runtime_env=environment(sys.argv[1]), log_to_driver=False, logging_level="ERROR")
    found = {**tasks_and_actors(), **spread_and_large(), **cooked(), **handwriting()}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
