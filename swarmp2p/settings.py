"""Settings, checked where they are made.

What a setting cannot mean would otherwise end the whole peer, hours later and far from the line that is wrong. The
types are those that the dataclass declares: whole numbers are no bools, text is no number, NaN is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_settings(settings: DataclassInstance, above_zero: Iterable[str] = ()) -> None:
    """As check_types; and numbers are finite and at least 0, those named above 0. Raises UsageError."""
    check_types(settings)
    positive = frozenset(above_zero)
    for field in fields(settings):
        kind, value = _declared(field), getattr(settings, field.name)
        if kind not in ("int", "float") or value is None:
            continue
        if value < 0 or value == math.inf or (field.name in positive and not value):
            raise _wrong(settings, field, " above 0" if field.name in positive else " of at least 0")


def check_types(settings: DataclassInstance) -> None:
    """Raises UsageError where a number, a bool, a text or a group of further settings is something else."""
    for field in fields(settings):
        value: object = getattr(settings, field.name)
        if value is None and _optional(field):
            continue
        match _declared(field):
            case "int":
                good = isinstance(value, int) and not isinstance(value, bool)
            case "float":
                good = isinstance(value, int | float) and not isinstance(value, bool) and value == value
            case "bool":
                good = isinstance(value, bool)
            case "str":
                good = isinstance(value, str)
            case _:
                factory: object = field.default_factory
                good = not isinstance(factory, type) or isinstance(value, factory)
        if not good:
            raise _wrong(settings, field)


def _declared(field: Field[Any]) -> str:
    """The type's name, without "| None"; engines' modules have annotations as text."""
    return str(field.type).removesuffix(" | None")


def _optional(field: Field[Any]) -> bool:
    return str(field.type).endswith(" | None")


def _wrong(settings: DataclassInstance, field: Field[Any], least: str = "") -> UsageError:
    kind, value = _declared(field), getattr(settings, field.name)
    seconds = " of seconds" if field.name.endswith("_s") else ""
    words = {
        "int": f"a whole number{least}",
        "float": f"a number{seconds}{least}",
        "bool": "True or False",
        "str": "text",
    }
    said = words.get(kind, f"of type {kind}") + (", or None" if _optional(field) else "")
    return UsageError(f"{type(settings).__name__}.{field.name} is {said}, not {value!r}")
