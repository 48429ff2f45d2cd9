"""What all benchmarks share: figures, their comparison, and the JSON object that they end in.

Each side of a comparison (ours, another implementation) runs in a process of its own, so that neither pays
for the other's memory, threads or garbage:

    python -m benchmarks.NAME --json            run_side() for each, then result() as the last line of stdout
    python -m benchmarks.NAME --side ours ...   one side: a Side as the last line of its stdout
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

Figures = dict[str, float]
"""Metric, with its unit last, to value."""

MORE_IS_BETTER: Final = frozenset(
    {
        *("success", "burst_stored", "delivered", "finds_per_s", "deliveries_per_s", "mb_per_s"),
        *("loop_events_per_s", "engine_events_per_s"),
        *("far_mb_per_s", "stalled_share", "cut_whole"),
    }
)
"""Metrics of which the best is the largest; of all others it is the smallest."""

ROOT: Final = Path(__file__).resolve().parents[1]
"""Of the checkout: where benchmarks run."""


class SideFailed(Exception):
    """One side of a benchmark ended without a result; its own output says why. There is no comparison
    then."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side measured. setup: how it was measured where that differs between sides (counts,
    versions)."""

    figures: Figures
    setup: dict[str, float | str] = field(default_factory=dict[str, float | str])


@dataclass(frozen=True, slots=True)
class Bar:
    """metric: of our side. limit: it is at most that; at_least: at least."""

    metric: str
    limit: float
    at_least: bool = False

    def judge(self, figures: Figures) -> dict[str, float | bool]:
        """What the result says of it."""
        value = figures[self.metric]
        return {
            "value": value,
            "at_least" if self.at_least else "at_most": self.limit,
            "passed": value >= self.limit if self.at_least else value <= self.limit,
        }


def script(main: Callable[[], None]) -> None:
    """Run a benchmark's main; Ctrl-C ends it, with status 130, without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all are not above, linear between neighbours; values: at least
    one."""
    if not values:
        raise ValueError("no values, hence no percentile; measure at least one operation")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def medians(runs: Iterable[Figures]) -> Figures:
    """Of each metric over those runs that have it."""
    some = list(runs)
    metrics = dict.fromkeys(metric for run in some for metric in run)
    return {metric: percentile([run[metric] for run in some if metric in run], 0.5) for metric in metrics}


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def told(figures: Mapping[str, float]) -> str:
    """Figures as a line, for `say`."""
    return ", ".join(f"{metric} {rounded(value):g}" for metric, value in figures.items())


def ratios(ours: Figures, peers: Mapping[str, Figures]) -> Figures:
    """ours / the best peer's, for each metric that ours and some peer have, where that is not 0."""
    found: Figures = {}
    for metric, value in ours.items():
        others = [figures[metric] for figures in peers.values() if metric in figures]
        if others:
            best = max(others) if metric in MORE_IS_BETTER else min(others)
            if best:
                found[metric] = rounded(value / best)
    return found


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def result(
    benchmark: str, setup: Mapping[str, object], packages: Sequence[str], sides: Mapping[str, Side]
) -> dict[str, object]:
    """The object a benchmark prints. sides: "ours" and the peers, by name; what they say of their setup goes
    under their name."""
    figures = {
        name: {metric: rounded(v) for metric, v in side.figures.items()} for name, side in sides.items()
    }
    ours = figures.pop("ours")
    return {
        "benchmark": benchmark,
        "setup": {**setup, "cores": os.cpu_count(), **{name: side.setup for name, side in sides.items()}},
        "versions": versions("swarmp2p", *packages),
        "ours": ours,
        "peers": figures,
        "ratio": ratios(ours, figures),
    }


# The sides' processes ---------------------------------------------------------------------------------------


def compare(benchmark: str, options: Mapping[str, object], sides: tuple[str, str], limit_s: float) -> str:
    """Run both sides of benchmarks.<benchmark>, ours first; returns the object that it prints, as JSON.

    The other side gets a second attempt: py-libp2p now and then ends by itself. Raises SideFailed.
    """
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    ours, theirs = sides
    measured = {
        ours: run_side(benchmark, ours, arguments, limit_s),
        theirs: run_side(benchmark, theirs, arguments, limit_s, attempts=2),
    }
    return json.dumps(result(benchmark, options, ["libp2p"], measured))


def run_side(benchmark: str, side: str, options: Sequence[str], limit_s: float, attempts: int = 1) -> Side:
    """Run one side of benchmarks.<benchmark> and return what it measured.

    limit_s: seconds after which it is stopped. attempts: starts before SideFailed is raised; more than one for
    those who now and then end by an error of their own.
    """
    while True:
        attempts -= 1
        try:
            return _run_side(benchmark, side, options, limit_s)
        except SideFailed as problem:
            if attempts <= 0:
                raise
            say(f"{problem}; once more")


def _run_side(benchmark: str, side: str, options: Sequence[str], limit_s: float) -> Side:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--side", side, *options]
    load = load_average()
    say(f"{side}: started, load average {load}")
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise SideFailed(f"{side} was stopped after {limit_s:g} s; give it less to do") from None
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        raise SideFailed(f"{side} ended with status {done.returncode} and no result; its messages are above")
    measured = read_side(lines[-1])
    return Side(measured.figures, {**measured.setup, "load_average": load})


def environment() -> dict[str, str]:
    """Of a process that imports this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_python_path()])}


def _python_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return [path] if path else []


def tell_side(side: Side) -> None:
    """Print what one side measured, for `run_side`."""
    print(json.dumps({"figures": side.figures, "setup": side.setup}), flush=True)


def tell_and_end(side: Side) -> NoReturn:
    """Print what one side measured and end this process at once.

    For other implementations, whose hosts may raise or wait long when they are closed under traffic. That
    is not what is measured, and it would cost the result.
    """
    tell_side(side)
    os._exit(0)


def read_side(line: str) -> Side:
    """What `tell_side` printed; raises SideFailed for anything else."""
    try:
        told = json.loads(line)
        figures = {str(metric): float(value) for metric, value in told["figures"].items()}
        setup: dict[str, float | str] = dict(told["setup"])
    except (ValueError, TypeError, LookupError, AttributeError):
        raise SideFailed(f"the last line of a side is no result: {line[:200]!r}") from None
    return Side(figures, setup)


# Meters -----------------------------------------------------------------------------------------------------


class Meter:
    """Time and CPU (user and system, all threads of this process) since it was made; both in seconds."""

    def __init__(self) -> None:
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()

    @property
    def elapsed_s(self) -> float:
        """Wall time."""
        return time.perf_counter() - self._began_s

    @property
    def cpu_s(self) -> float:
        """CPU time."""
        return time.process_time() - self._cpu_s


def memory_mb() -> float:
    """Resident memory of this process, in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load_average() -> float:
    """Of the last minute, all processes of the machine: how much to believe the timings."""
    return round(os.getloadavg()[0], 2)
