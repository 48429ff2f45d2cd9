"""What Ray's processes find in their environment, and the driver's likewise.

The token that joins a cluster travels in the environment only: a command line is readable by every user of a
machine, /proc/PID/environ by its owner alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from .events import JoinSecret

# Of a lender's environment, what a stranger's tasks may see and need: where programs, libraries and devices
# are, and the language. Everything else may hold the owner's secrets.
_LENT_NAMES: Final = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONHOME", "PYTHONPATH"}
    | {"PYTHONPYCACHEPREFIX", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ", "USER", "VIRTUAL_ENV"}
)
_LENT_PREFIXES: Final = ("CUDA_", "LC_", "NVIDIA_", "ROCR_", "HIP_")

NODE_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # A raylet that finds its own store not up yet sleeps 1 s by default before it looks again: 10 s in all.
        "RAY_raylet_client_connect_timeout_milliseconds": "20",
        "RAY_raylet_client_num_connect_attempts": "500",
        "RAY_USAGE_STATS_ENABLED": "0",
        # SIGTERM means now; Ray would wait up to 30 s for tasks that may never end.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Pickles need the same minor version of Python; Ray's default asks for the same patch version.
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    }
)

_MOST_RTT_S: Final = 2.0
"""As long as a round trip is taken to be at most: what was measured may be wrong, and deaths have to be noticed."""


_RESUMING_MS: Final = 20_000
"""For a cluster that is resumed: leases are renewed and paths made again before it is asked who lives."""


def health_settings(rtt_s: float = 0.0, *, resumes: bool = False) -> dict[str, str]:
    """How a head notices dead nodes, the farthest of which is a round trip of `rtt_s` seconds away.

    One whose port refuses (killed, or the path to it reset) is dead after 4 checks, 0.5 s and 2 round trips apart: 2 s
    nearby, 3.2 s across the Earth (150 ms). In that time a path that was lost is made again: statements by way of the
    head, TCP, the carrier's handshake. One that is silent is dead after 4 checks of 2 s and 10 round trips each: 10 s
    nearby, long enough for a raylet that has to share two cores with ten busy processes; 17 s across the Earth, where a
    check may wait behind objects that are on their way. Ray's defaults (3 s apart, 10 s each, 5 checks) need 15 s and
    65 s. resumes: there are nodes of an earlier head, to which there is no path yet.
    """
    rtt_ms = 1000 * min(max(rtt_s, 0.0), _MOST_RTT_S)
    return {
        "RAY_health_check_initial_delay_ms": str(_RESUMING_MS if resumes else 1000),
        "RAY_health_check_period_ms": str(round(500 + 2 * rtt_ms)),
        "RAY_health_check_timeout_ms": str(round(2000 + 10 * rtt_ms)),
        "RAY_health_check_failure_threshold": "4",
    }


def lender_environment(token: str = "") -> dict[str, str]:
    """For a worker node: nothing of the lender's own but what tasks need. token: "" for one that is not leased yet."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _LENT_NAMES or name.startswith(_LENT_PREFIXES)
    }
    return {**kept, **NODE_SETTINGS, **_token(token)}


def head_environment(
    token_path: Path, storage: Path, rtt_s: float = 0.0, resumes: bool = False
) -> dict[str, str]:
    """For a head node: the borrower's own environment, without what it says to Ray about other clusters.

    token_path: a file that holds the token. storage: directory of what GCS keeps, by which it can be started again.
    rtt_s, resumes: see `health_settings`.
    """
    return borrowers_environment(
        {
            **NODE_SETTINGS,
            **health_settings(rtt_s, resumes=resumes),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token_path),
            # Drivers' ray.autoscaler.sdk.request_resources tells GCS, where elastic clusters look for demand.
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": "head",  # by which Ray's own autoscaler knows it
            "RAY_NODE_TYPE_NAME": "head",
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(storage),
        }
    )


def borrowers_environment(more: Mapping[str, str]) -> dict[str, str]:
    """For a process of a cluster's on the borrower's machine: all of this process's, but for what that says to Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling Ray anew costs each of its processes a second
    return {**kept, **more}


def driver_environment(secret: JoinSecret) -> dict[str, str]:
    """What a driver needs to find and use a cluster. Keep it secret."""
    match_level = "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"
    return {
        "RAY_ADDRESS": secret.address,
        match_level: NODE_SETTINGS[match_level],
        **_token(secret.token),
    }


@contextmanager
def applied(environment: Mapping[str, str]) -> Generator[None, None, None]:
    """Make this process a driver for the length of the context, then restore what was there before.

    Works also where `import ray` came first: Ray reads the way to authenticate at import and keeps the token
    it first used, so both are read anew. The environment belongs to the whole process: of several such
    contexts the one entered last counts, in whatever order they end.

    On the way out this process leaves the cluster, if it is still connected: see `leave`.
    """
    if not _contexts:
        _before.update({name: os.environ.get(name) for name in driver_environment(JoinSecret("", ""))})
    entry = dict(environment)
    _contexts.append(entry)
    _set_environment()
    try:
        yield
    finally:
        leave(environment["RAY_ADDRESS"])
        _contexts[:] = [other for other in _contexts if other is not entry]
        _set_environment()
        if not _contexts:
            _before.clear()


def leave(address: str) -> None:
    """`ray.shutdown()`, if this process is connected to the cluster whose GCS is at `address`.

    Ray 2.60 ends a process, whatever else that does, once GCS has not answered it for 60 seconds: code that
    goes on after its cluster is closed would be killed a minute later.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    context = ray.get_runtime_context()  # Ray Client's has no gcs_address: that is never one of ours
    if getattr(context, "gcs_address", None) == address:
        ray.shutdown()


_contexts: Final[list[Mapping[str, str]]] = []
_before: Final[dict[str, str | None]] = {}


def _set_environment() -> None:
    """Those variables of this process as the newest context has them, or as they were before the first."""
    wanted: Mapping[str, str | None] = _contexts[-1] if _contexts else _before
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _reread()


def _token(token: str) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def _reread() -> None:
    """Have Ray, if this process has imported it, read its environment again."""
    raylet: Any = sys.modules.get("ray._raylet")
    if raylet is not None:
        # Ray 2.60's own authentication_token_setup.py does the same after it has set the mode.
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
