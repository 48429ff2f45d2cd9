"""Which GPUs a lease gets, and which device nodes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmp2p.errors import UsageError
from swarmp2p.ray_bridge.gpus import Gpu, GpuTable, find_gpus, gpu_nodes

NVIDIA = ("null", "nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps", "zero")
AMD = ("kfd", "dri/card0", "dri/renderD128", "dri/renderD129", "null")


def nodes(gpus: tuple[Gpu, ...]) -> list[str]:
    return [gpu.node for gpu in gpus]


def test_gpus_are_found_by_their_nodes() -> None:
    assert nodes(find_gpus(NVIDIA, {})) == ["nvidia0", "nvidia1", "nvidia10"]
    assert nodes(find_gpus(AMD, {})) == ["dri/renderD128", "dri/renderD129"]
    assert nodes(find_gpus(("dxg",), {})) == ["dxg"]
    assert find_gpus(("null", "dri/renderD128"), {}) == ()


def test_an_owners_choice_is_kept() -> None:
    assert nodes(find_gpus(NVIDIA, {"CUDA_VISIBLE_DEVICES": "10, 0"})) == ["nvidia0", "nvidia10"]
    assert find_gpus(NVIDIA, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert find_gpus(NVIDIA, {"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    with pytest.raises(UsageError, match="numbers of /dev/nvidia0"):
        find_gpus(NVIDIA, {"CUDA_VISIBLE_DEVICES": "GPU-1234"})


def test_a_jail_gets_the_nodes_of_its_own_gpus_and_the_shared_ones() -> None:
    (_, one, _) = find_gpus(NVIDIA, {})
    assert gpu_nodes([one], NVIDIA) == ("/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm")
    (_, two) = find_gpus(AMD, {})
    assert gpu_nodes([two], AMD) == ("/dev/dri/renderD129", "/dev/kfd")
    assert gpu_nodes([], NVIDIA) == ()
    assert gpu_nodes(find_gpus(("dxg",), {}), ("dxg",)) == ("/dev/dxg",)


def test_parts_share_a_gpu_and_whole_ones_do_not() -> None:
    table = GpuTable(find_gpus(NVIDIA, {}))
    half = table.take(b"a", 0.5)
    assert half == table.take(b"b", 0.5)
    two = table.take(b"c", 2)
    assert two is not None
    assert half is not None
    assert not set(two) & set(half)
    assert table.take(b"d", 0.1) is None
    assert table.take(b"d", 0) == ()
    table.give_back(b"c")
    table.give_back(b"c")
    assert nodes(table.take(b"e", 1.5) or ()) == nodes(two)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0])), max_size=40))
def test_no_gpu_is_ever_given_twice(steps: list[tuple[int, float]]) -> None:
    gpus = find_gpus(NVIDIA, {})
    table = GpuTable(gpus)
    held: dict[bytes, tuple[tuple[Gpu, ...], float]] = {}
    for number, count in steps:
        lease = bytes([number])
        if lease in held:
            table.give_back(lease)
            del held[lease]
            continue
        got = table.take(lease, count)
        if got is not None:
            assert len(got) == math.ceil(count)
            held[lease] = got, min(count, 1.0)
        for gpu in gpus:
            users = [part for chosen, part in held.values() if gpu in chosen]
            assert sum(users) <= 1 + 1e-9
    for lease in held:
        table.give_back(lease)
    assert table.take(b"all", len(gpus)) == gpus
