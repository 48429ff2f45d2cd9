"""What `import swarmp2p` gives, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

import swarmp2p


def test_every_public_name_is_there() -> None:
    for name in swarmp2p.__all__:
        assert getattr(swarmp2p, name) is not None
    assert set(swarmp2p.__all__) <= set(dir(swarmp2p))
    assert list(swarmp2p.__all__) == sorted(swarmp2p.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = swarmp2p.no_such_name  # type: ignore[attr-defined] # pyright: ignore


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after running some code."""
    program = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_pulls_in_neither_ray_nor_libp2p() -> None:
    everything = "import swarmp2p\nfor name in swarmp2p.__all__: getattr(swarmp2p, name)"
    assert not modules_after(everything) & {"ray", "libp2p", "rich", "sklearn", "numpy"}


def test_importing_alone_costs_next_to_nothing() -> None:
    # counted in modules, because time on a busy machine says little
    assert not modules_after("import swarmp2p") & {"trio", "nacl", "google", "anyio", "multiaddr"}


def test_it_is_typed() -> None:
    assert swarmp2p.__file__ is not None
    from pathlib import Path

    assert (Path(swarmp2p.__file__).parent / "py.typed").is_file()
