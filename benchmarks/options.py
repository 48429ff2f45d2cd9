"""What the benchmarks' command lines have in common: one option for each field of a dataclass of numbers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def parser_for(
    benchmark: str, description: str | None, defaults: DataclassInstance, helps: Mapping[str, str]
) -> argparse.ArgumentParser:
    """A command line with --json and these options. benchmark: the script's name, as after `-m benchmarks.`. helps:
    of fields of `defaults`, which have these types and values; with - where a field has _."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, what in helps.items():
        value = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{what} ({value})")
    parser.add_argument(
        "--json", action="store_true", help="print nothing but the result on stdout; always so"
    )
    return parser


def options_of(kind: type[T], namespace: argparse.Namespace) -> T:
    """The dataclass, of what the command line says; each of its fields is one of its options."""
    return kind(**{field.name: getattr(namespace, field.name) for field in fields(kind)})
