"""The demo's job: a hyper-parameter search with cross-validation over scikit-learn's handwritten digits.

An ordinary Ray script: it knows nothing of swarmp2p. `--serial` runs the same fits in this process without
Ray, so that the two results can be compared. `--json` prints a JSON line for each finished fit.

Ray and scikit-learn are imported by name when used: their types are partial, and the demo is an extra.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

GAMMAS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.004)
CS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
FOLDS: Final = 10


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit: a candidate's parameters and the fold that it is tested on."""

    c: float
    gamma: float
    fold: int


FITS: Final = tuple(Fit(*values) for values in itertools.product(CS, GAMMAS, range(FOLDS)))


@dataclass(frozen=True, slots=True)
class Result:
    """The search's result. digest: over every single score, so that two runs compare in full."""

    fits: int
    best_c: float
    best_gamma: float
    best_accuracy: float
    digest: str


def load() -> tuple[Any, Any]:
    """1,797 images of 8 × 8 pixels, and the digit on each."""
    datasets: Any = importlib.import_module("sklearn.datasets")
    images, digits = datasets.load_digits(return_X_y=True)
    return images, digits


def score(fit: Fit, images: Any, digits: Any) -> float:
    """Accuracy on the fold that was left out."""
    svm: Any = importlib.import_module("sklearn.svm")
    tested = [index % FOLDS == fit.fold for index in range(len(digits))]
    trained = [not test for test in tested]
    model = svm.SVC(C=fit.c, gamma=fit.gamma).fit(images[trained], digits[trained])
    return float(model.score(images[tested], digits[tested]))


def summarize(scores: dict[Fit, float]) -> Result:
    """The candidate with the best mean accuracy; ties go to the first in the grid."""
    means = {
        (c, gamma): sum(scores[Fit(c, gamma, fold)] for fold in range(FOLDS)) / FOLDS
        for c, gamma in itertools.product(CS, GAMMAS)
    }
    (best_c, best_gamma), best = max(means.items(), key=lambda item: item[1])
    text = json.dumps([scores[fit] for fit in FITS])
    return Result(len(scores), best_c, best_gamma, best, hashlib.sha256(text.encode()).hexdigest()[:16])


def run_serial() -> Result:
    """Every fit in this process."""
    images, digits = load()
    return summarize({fit: score(fit, images, digits) for fit in FITS})


def run_on_ray(report: Callable[[str, float], None]) -> Result:
    """Every fit as a Ray task on the cluster that RAY_ADDRESS names. report(node name, seconds) for each."""
    ray: Any = importlib.import_module("ray")
    ray.init(log_to_driver=False)
    images, digits = (ray.put(part) for part in load())

    def fit_one(fit: Fit, images: Any, digits: Any) -> tuple[Fit, float, str]:
        return fit, score(fit, images, digits), ray.get_runtime_context().get_node_id()

    task = ray.remote(num_cpus=1, max_retries=-1)(fit_one)
    scores: dict[Fit, float] = {}
    pending = [task.remote(fit, images, digits) for fit in FITS]
    names: dict[str, str] = {}
    for fit, accuracy, node in _as_completed(ray, pending):
        scores[fit] = accuracy
        if node not in names:
            names = {entry["NodeID"]: entry["NodeName"] for entry in ray.nodes()}
        report(names.get(node, node), accuracy)
    return summarize(scores)


def _as_completed(ray: Any, pending: list[Any]) -> Iterator[tuple[Fit, float, str]]:
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        yield from ray.get(done)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the search and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serial", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)

    def report(node: str, accuracy: float) -> None:
        if options.json:
            print(json.dumps({"event": "task", "node": node, "accuracy": accuracy}), flush=True)

    result = run_serial() if options.serial else run_on_ray(report)
    if options.json:
        print(json.dumps({"event": "result", **asdict(result)}), flush=True)
    else:
        print(
            f"{result.fits} fits: best C={result.best_c}, gamma={result.best_gamma}, "
            f"cross-validated accuracy {result.best_accuracy:.4f} (digest {result.digest})"
        )


if __name__ == "__main__":
    main()
