"""Says what pip is configured with, for `index_door.py`: a program of its own, for pip is a program, and importing it
takes 0.2 s. One JSON object on standard output: {"default", "files", "config"}, empty where there is no pip.

pip is asked in its own code, as `pip config list` is it; where an environment has none, that which virtualenv brings.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def modules() -> tuple[Any, Any]:
    """pip's modules of its configuration and of its own index. Raises ImportError."""
    try:
        importlib.import_module("pip")
    except ImportError:
        embedded: Any = importlib.import_module("virtualenv.seed.wheels.embed")
        version = ".".join(map(str, sys.version_info[:2]))
        wheel = embedded.get_embed_wheel("pip", version)
        sys.path.append(str(wheel.path))
    return importlib.import_module("pip._internal.configuration"), importlib.import_module(
        "pip._internal.models.index"
    )


def main() -> int:
    """The program."""
    said: dict[str, object] = {}
    try:
        configuration, index = modules()
        found = configuration.Configuration(isolated=False)
        found.load()  # first: without it nothing is known, not even that the default counts
        config: dict[str, Any] = {}
        for name, value in found.items():  # since pip 25.3 by file, in the order in which they count
            config.update(value if isinstance(value, dict) else {name: value})
        own = index.PyPI
        said = {"default": own.simple_url, "files": own.file_storage_domain, "config": config}
    except Exception as problem:  # noqa: BLE001  pip's private API, and files that people have written
        print(f"pip does not say where packages come from: {problem!r}", file=sys.stderr)
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
