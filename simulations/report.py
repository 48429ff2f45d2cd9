"""What the scripts have in common: their options, a table, a picture and one JSON object.

    python -m simulations.NAME [--seed 1] [--png FILE] [--json] [...]

prints a table and, as the last line, the JSON object; only that with --json. The object repeats bit for bit from
the same options, but for `wall_s` and what depends on it. Pictures need matplotlib: pip install swarmp2p[plot]. Exit
status: 0 done, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Report = dict[str, object]
"""Metrics by name; a metric's unit comes last in its name. Times are virtual unless it says wall."""


def parser_for(module: str, description: str | None) -> argparse.ArgumentParser:
    """A command line with the common options. module: the script's, as after `-m`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of everything random (1)")
    parser.add_argument("--png", metavar="FILE", type=_picture_file, help="draw a picture into this file")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    return parser


def script(main: Callable[[], None]) -> None:
    """Run a script's main; Ctrl-C ends it without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def tell(report: Report, options: argparse.Namespace, draw: Callable[[Figure], None] | None = None) -> None:
    """Print a report as the options want it, and draw its picture if they do."""
    if draw is not None and options.png:
        _picture(options.png, draw)
    if not options.json:
        print(table(report))
    print(json.dumps({name: _rounded(value) for name, value in report.items()}))


def table(report: Report) -> str:
    """A line for each metric, but not for lists and objects, which are for programs."""

    def shown(value: object) -> str:
        return f"{value:,.4g}" if isinstance(value, float) else str(value)

    rows = {name: value for name, value in report.items() if not isinstance(value, list | dict)}
    width = max(map(len, rows))
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {shown(value):>32}" for name, value in rows.items())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of all do not exceed; 0 when there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def mean(values: Sequence[float]) -> float:
    """0 when there are none."""
    return sum(values) / len(values) if values else 0.0


def finite(text: str) -> float:
    """The type of options that are numbers: neither NaN nor infinite, of which a run would have no end."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return value


def _picture_file(name: str) -> str:
    """Where a picture can be drawn: known before a run of minutes begins."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        problem = "pictures need matplotlib: pip install 'swarmp2p[plot]'"
        raise argparse.ArgumentTypeError(problem) from None
    path, kinds = Path(name), FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise argparse.ArgumentTypeError(
            f"{name!r} does not end in .png, nor in .{', .'.join(sorted(kinds))}"
        )
    there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    except OSError as problem:
        raise argparse.ArgumentTypeError(f"{name!r} cannot be written: {problem.strerror}") from None
    return name


def _picture(path: str, draw: Callable[[Figure], None]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    draw(figure)
    figure.savefig(path, dpi=120)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return value
