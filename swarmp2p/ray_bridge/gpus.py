"""Which GPUs a lease gets, and the device nodes that are these and no others. Pure.

A GPU that is in no worker's jail cannot be opened there; what is beside the nodes of the GPUs themselves (nvidiactl,
nvidia-uvm, kfd) is shared by all of a machine, and their drivers keep processes apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import UsageError

SHARED: Final = {
    "nvidia": ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"),
    "amd": ("kfd",),
    "wsl": ("dxg",),
}
"""Nodes in /dev that each GPU of a make needs."""

CHOSEN: Final = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
)
"""Variables that number GPUs as the lender sees them. In a jail those that are there are 0, 1, ..."""

_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. make: a key of SHARED. node: its own, below /dev."""

    make: str
    node: str


def find_gpus(nodes: Collection[str], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs of a machine, of the first make that it has.

    nodes: what is in /dev and, as dri/..., in /dev/dri. environment: CUDA_VISIBLE_DEVICES there leaves out those that
    it does not number. Raises UsageError where it names them otherwise.
    """
    nvidia = sorted(int(node[6:]) for node in nodes if re.fullmatch(r"nvidia\d+", node))
    if nvidia:
        visible = _visible(environment.get("CUDA_VISIBLE_DEVICES"))
        return tuple(
            Gpu("nvidia", f"nvidia{number}") for number in nvidia if visible is None or number in visible
        )
    if "kfd" in nodes:
        render = sorted(int(node[11:]) for node in nodes if re.fullmatch(r"dri/renderD\d+", node))
        return tuple(Gpu("amd", f"dri/renderD{number}") for number in render)
    return (Gpu("wsl", "dxg"),) if "dxg" in nodes else ()


def gpu_nodes(gpus: Collection[Gpu], nodes: Collection[str]) -> tuple[str, ...]:
    """Paths of the device nodes of these GPUs: their own, and those that they share if they are there."""
    wanted = dict.fromkeys(gpu.node for gpu in gpus)
    for gpu in gpus:
        wanted.update(dict.fromkeys(node for node in SHARED[gpu.make] if node in nodes))
    return tuple(f"/dev/{node}" for node in wanted)


@dataclass(slots=True)
class GpuTable:
    """Who has which. A lease of less than one GPU shares it with others of that kind; of more, all of each."""

    gpus: tuple[Gpu, ...]
    _used: dict[Gpu, float] = field(default_factory=dict[Gpu, float])
    _held: dict[bytes, tuple[tuple[Gpu, ...], float]] = field(
        default_factory=dict[bytes, tuple[tuple[Gpu, ...], float]]
    )

    def take(self, lease: bytes, count: float) -> tuple[Gpu, ...] | None:
        """GPUs for a lease, which has none yet; None when there are not as many left, and then nothing is taken."""
        assert lease not in self._held
        if count <= 0:
            return ()
        if count < 1:
            part, room = (
                count,
                [gpu for gpu in self.gpus if self._used.get(gpu, 0.0) + count <= 1 + _ROUNDING],
            )
            chosen = sorted(room, key=lambda gpu: -self._used.get(gpu, 0.0))[:1]
        else:
            part, chosen = 1.0, [gpu for gpu in self.gpus if not self._used.get(gpu)][: math.ceil(count)]
        if len(chosen) < math.ceil(count):
            return None
        for gpu in chosen:
            self._used[gpu] = self._used.get(gpu, 0.0) + part
        self._held[lease] = (tuple(chosen), part)
        return tuple(chosen)

    def give_back(self, lease: bytes) -> None:
        """The lease's GPUs are free again; nothing happens when it has none."""
        gpus, part = self._held.pop(lease, ((), 0.0))
        for gpu in gpus:
            left = self._used[gpu] - part
            if left > _ROUNDING:
                self._used[gpu] = left
            else:
                del self._used[gpu]


def _visible(chosen: str | None) -> frozenset[int] | None:
    """The numbers of CUDA_VISIBLE_DEVICES; None for all."""
    if chosen is None:
        return None
    numbers = [each.strip() for each in chosen.split(",") if each.strip()]
    if not all(re.fullmatch(r"-?\d+", each) for each in numbers):
        raise UsageError(
            f"CUDA_VISIBLE_DEVICES={chosen} does not say which device nodes may be lent; "
            "give the numbers of /dev/nvidia0, 1, ..., or lend with isolation none"
        )
    return frozenset(int(each) for each in numbers)
