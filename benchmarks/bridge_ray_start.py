"""What anybody can do by hand, for benchmarks/bridge.py: heads and workers by the `ray` command, on this machine."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Final

import psutil

from .bridge_fleet import Asked, start_driver
from .bridge_places import Place, near
from .report import Figures, SideFailed, percentile, say

_LIMIT_S: Final = 120.0
_WORKERS: Final = 3
_END_S: Final = 10.0
_ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
"""`ray start --block` ends its node when it is told to, and it is when this process ends, however."""


class ByHand:
    """A head at 127.x.y.1 and workers beside it, each in the foreground of a process of this one's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ray = which("ray", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if ray is None:
            raise SideFailed("the `ray` command is not installed; pip install 'swarmp2p[ray]'")
        self._ray = ray
        self._net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        self._started: list[subprocess.Popen[bytes]] = []
        self._secret = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._address = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs."""
        return {**self._secret, "RAY_ADDRESS": self._address}

    def _start(self, number: int, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._directory / f"{number}.log"
        environment = {**os.environ, **self._secret}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with log.open("wb") as out:
            process = subprocess.Popen(
                [
                    *_ENDS_WITH_US,
                    *(self._ray, "start", "--block", f"--node-ip-address={self._net}.{number}"),
                    *(f"--temp-dir={self._directory / str(number)}", *options),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process, log

    def head(self) -> None:
        """Start the head; returns when it says its address."""
        process, log = self._start(1, "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false")
        limit = time.monotonic() + _LIMIT_S
        while not (found := re.search(rb"--address='?([0-9.]+:[0-9]+)", log.read_bytes())):
            if process.poll() is not None or time.monotonic() > limit:
                raise SideFailed(f"`ray start --head` did not say its address: {log.read_bytes()[-2000:]!r}")
            time.sleep(0.02)
        self._address = found[1].decode()

    def worker(self, number: int) -> subprocess.Popen[bytes]:
        """Start a worker; its node comes by itself."""
        return self._start(number, f"--address={self._address}", "--num-cpus=1")[0]

    def end(self, one: subprocess.Popen[bytes]) -> None:
        """End a node with all of its processes. Asked first, so that the head hears of it: for a quarter of a minute
        it would give tasks to a node that was killed."""
        node = psutil.Process(one.pid)
        processes = [*node.children(recursive=True), node]
        one.terminate()
        with suppress(subprocess.TimeoutExpired):
            one.wait(_END_S)
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # also when another has its number by now
                process.kill()
        one.wait()
        self._started.remove(one)

    def close(self) -> None:
        """End all."""
        for one in [*self._started]:
            self.end(one)


@contextmanager
def by_hand() -> Generator[tuple[ByHand, Place], None, None]:
    """A place for drivers, and what starts nodes."""
    with near(1) as (place,), tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as name:
        hand = ByHand(Path(name))
        try:
            yield hand, place
        finally:
            hand.close()


def leases(count: int) -> Figures:
    """From `ray start --address` to a first task on that node; head and driver stand."""
    found: list[float] = []
    with by_hand() as (hand, place):
        hand.head()
        driver = start_driver(place, hand.environment)
        for number in range(count):
            began = time.monotonic()
            worker = hand.worker(2 + number)
            found.append(float(driver.ask("task")["at"]) - began)
            hand.end(worker)
            time.sleep(1.0)
        driver.end()
    say(f"ray start: {' '.join(f'{one:.2f}' for one in found)}")
    return {
        "lease_to_task_p50_s": percentile(found, 0.5),
        "lease_to_task_p95_s": percentile(found, 0.95),
    }


def cluster(runs: int) -> Figures:
    """Head, then three workers at once, then a driver that runs a task on each."""
    found: list[float] = []
    for _ in range(runs):
        with by_hand() as (hand, place):
            began = time.monotonic()
            hand.head()
            for number in range(_WORKERS):
                hand.worker(2 + number)
            driver: Asked = start_driver(place, hand.environment)
            found.append(float(driver.ask(f"each {_WORKERS}")["at"]) - began)
            driver.end()
    say(f"ray start, three workers: {' '.join(f'{one:.2f}' for one in found)}")
    return {"cluster_of_3_s": percentile(found, 0.5)}


def measure(scenarios: Mapping[str, int]) -> Figures:
    """scenarios: name to how many times."""
    figures: Figures = {}
    for name, measured in (("leases", leases), ("cluster", cluster)):
        if scenarios.get(name):
            figures |= measured(scenarios[name])
    return figures
