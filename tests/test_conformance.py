"""Every engine of swarmp2p, held to what engines promise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance import STEPS, EngineCase, check_promises, storm
from tests.engine_cases import CASES
from tests.engine_cases.node import NODE_CASE

steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2**32 - 1)), max_size=50)


HAPPENINGS = {"meshes": 6000, "leases": 20000}
"""Of a storm, where 3,000 are too few to get far: a pair of members comes about when six messages arrive in a row, and
a lease is active after as many and three commands."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_engine_keeps_its_promises(case: EngineCase) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**16), steps)
    def run(seed: int, happenings: list[tuple[str, int]]) -> None:
        check_promises(case, seed, happenings)

    run()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_keeps_its_promises_and_its_bounds_through_a_storm(case: EngineCase, seed: int) -> None:
    world = storm(case, seed, HAPPENINGS.get(case.name, 3000))
    assert world.delivered > 500, "the storm did not reach the engines"
    assert world.refused > 60, "nothing that was sent was malformed"
    if case is not NODE_CASE:
        assert set(case.outputs) <= set(world.put_out), "the storm did not get far"
