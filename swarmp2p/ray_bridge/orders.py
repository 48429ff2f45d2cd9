"""What a cluster's node provider says to the program that has the cluster: one request a connection, in JSON."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .demand import KIND_LABEL, RAY_REGION_LABEL, REGION_LABEL
from .events import Need

HEAD: Final = "head"
"""The head's id; a worker's is its lease, as hex."""

WHOLE: Final = "whole"
"""Of the provider's settings, the one that holds all of the YAML file, as JSON."""

MAX_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 10.0


def socket_path(cluster: str) -> Path:
    """Where the program listens that has the cluster of this name; its directory is this user's alone."""
    directory = Path(tempfile.gettempdir()) / f"swarmp2p-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not this user's alone; remove it")
    return directory / (re.sub(r"[^A-Za-z0-9_.-]", "-", cluster)[:40] + ".sock")


def ask(path: Path, request: Mapping[str, object]) -> dict[str, Any]:
    """Ask, and wait for the answer. Raises OSError when nobody is there."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_TIMEOUT_S)
        line.connect(str(path))
        line.sendall(json.dumps(request).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            chunk = line.recv(65536)
            if not chunk:
                raise ConnectionResetError("the cluster's program ended")
            said += chunk
    answer: dict[str, Any] = json.loads(said)
    return answer


def need_of(resources: Mapping[str, float], labels: Mapping[str, str]) -> Need:
    """Of a node type: what its resources and labels ask of a lender."""
    labels = dict(labels)
    region = labels.pop(RAY_REGION_LABEL, "")
    return Need(
        cpus=float(resources.get("CPU", 1)),
        gpus=float(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
        kind=labels.pop(KIND_LABEL, ""),
        region=labels.pop(REGION_LABEL, region),
        labels=tuple(sorted(labels.items())),
    )
