"""Whether what a lender has announced can be what a borrower wants, before it is asked. Pure.

A record may be old and may lie; the lease engine checks everything again. What a record does not say (an older
version of swarmp2p, or one with fewer attributes) speaks against nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from .elastic import Ask
from .events import Versions
from .policy import version_problem

_ROUNDING = 1e-9


def unfit_record(attributes: Mapping[str, str | int | float | bool], ask: Ask, versions: Versions) -> str:
    """Why a lender with this record is not asked for a worker; "" when it is. versions: of the cluster's head."""
    ray, python = attributes.get("ray"), attributes.get("python")
    if isinstance(ray, str) and isinstance(python, str):
        problem = version_problem(Versions(ray, python, ""), versions)
        if problem:
            return problem
    need = ask.need
    for name, wanted, unwanted in (
        ("kind", need.kind, ask.not_kinds),
        ("region", need.region, ask.not_regions),
    ):
        said = attributes.get(name)
        if isinstance(said, str) and ((wanted and said != wanted) or said in unwanted):
            asked = wanted or "another"
            return f"its {name} is {said or 'not set'}, and {asked} was asked for"
    for name, least in (("cpus", need.cpus), ("gpus", need.gpus)):
        said = attributes.get(name)
        if isinstance(said, int | float) and least > said + _ROUNDING:
            return f"it lends {said:g} {name.upper()[:-1]}s, and {least:g} were asked for"
    return ""
