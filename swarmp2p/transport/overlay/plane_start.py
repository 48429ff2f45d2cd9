"""Starts the plane's process. A program, run as a file so that it starts in 40 ms and stays small:

    python -I -S plane_start.py CONTROL CELL PARENT ROOT SITE...

CONTROL, CELL: numbers of inherited descriptors, CELL may be -1. PARENT: pid of the process to die with. ROOT: the
folder that holds the package swarmp2p; SITE: where `cryptography` and what it needs are found.

Importing the package the usual way would run its __init__, and with it trio and libp2p: half a second and 60 MB that
nobody needs here. So the packages on the way to the overlay are made by hand, empty.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType


def main(arguments: list[str]) -> None:
    """See the module."""
    control, cell, parent = (int(word) for word in arguments[:3])
    root, sites = arguments[3], arguments[4:]
    sys.path += sites
    package = ""
    for part in ("swarmp2p", "transport", "overlay"):
        root = os.path.join(root, part)
        package = f"{package}.{part}" if package else part
        module = ModuleType(package)
        module.__path__ = [root]
        sys.modules[package] = module
    process = import_module("swarmp2p.transport.overlay.plane_process")
    process.main(control, None if cell < 0 else cell, parent)


if __name__ == "__main__":
    main(sys.argv[1:])
