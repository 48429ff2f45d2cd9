"""Which versions are installed here, found without importing Ray."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from ..errors import RayMissing
from .events import Versions


def check_installed() -> None:
    """Raises RayMissing without Ray. For each worker: to look the versions up leaves garbage in cycles every time."""
    if "ray" not in sys.modules and find_spec("ray") is None:
        raise RayMissing


def installed_versions() -> Versions:
    """What a head or a worker of this installation would run. Raises RayMissing without Ray."""
    from importlib import metadata  # 20 ms that only lending and borrowing need

    try:
        ray = metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise RayMissing from None
    try:
        ours = metadata.version("swarmp2p")
    except metadata.PackageNotFoundError:
        ours = "unknown"  # run from a source tree that was never installed
    return Versions(ray=ray, python=f"{sys.version_info.major}.{sys.version_info.minor}", swarmp2p=ours)
